import os
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fopro_lab.checks import audit_pipeline
from fopro_lab.data import (
    batches,
    cycle,
    from_torch,
    make_split,
    open_dataset,
    pack,
    paired_batches,
    read_pixels,
)
from fopro_lab.data.dataset import check_rows, take_rows
from fopro_lab.errors import InputError
from tests.conftest import refuses
from tests.data.toys import write_images


def test_open_dataset_reads_a_folder_per_class(tmp_path, monkeypatch):
    dataset = open_dataset(write_images(tmp_path / "skin"))
    assert (dataset.name, len(dataset)) == ("skin", 6)
    assert dataset.class_names == ("class0", "class1")
    assert dataset.read(0, 8).shape == (8, 8, 3)
    assert list(dataset.table) == ["image", "path", "label", "group", "source", "split"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(open_dataset("~/skin")) == 6
    write_images(tmp_path / "phantom")
    monkeypatch.chdir(tmp_path)  # a path goes before a name
    assert open_dataset("phantom").class_names == ("class0", "class1")


def test_open_dataset_says_in_its_name_that_it_is_a_part(tmp_path):
    dataset = open_dataset("phantom", images=120, seed=5)
    assert (len(dataset), dataset.name) == (120, "phantom-120-seed5")
    assert dataset.table["label"].nunique() == 8
    root = write_images(tmp_path / "skin", each=10)
    part = open_dataset(root, images=12)
    assert (part.name, len(part)) == ("skin-12", 12)
    assert part.table["label"].value_counts().tolist() == [6, 6]
    assert open_dataset(root, images=12, seed=1).name == "skin-12-seed1"
    assert open_dataset(root, images=99).name == "skin"


def test_fingerprint_tells_images_apart_but_not_places(tmp_path):
    first = open_dataset(write_images(tmp_path / "a" / "skin"))
    same = open_dataset(write_images(tmp_path / "b" / "skin"))
    assert first.fingerprint == same.fingerprint
    with open(tmp_path / "b" / "skin" / "class0" / "0.png", "ab") as stream:
        stream.write(b"\0")
    assert open_dataset(tmp_path / "b" / "skin").fingerprint != first.fingerprint
    phantoms = [open_dataset("phantom", images=24, seed=seed).fingerprint for seed in (0, 1)]
    assert phantoms[0] != phantoms[1]


def test_the_stamp_tells_a_replaced_file_of_the_same_size(tmp_path):
    root = write_images(tmp_path / "skin")
    first = open_dataset(root)
    assert first.stamp == open_dataset(root).stamp != ""
    image = root / "class0" / "0.png"
    changed = image.stat().st_mtime_ns + 1  # a nanosecond
    os.utime(image, ns=(changed, changed))
    second = open_dataset(root)
    assert second.fingerprint == first.fingerprint and second.stamp != first.stamp
    assert second.subset([3, 4]).stamp != first.subset([3, 4]).stamp
    assert len({second.subset(rows).stamp for rows in ([0, 1], [1, 0], [0], [0, 1, 2])}) == 4
    phantom = open_dataset("phantom", images=24)
    assert (phantom.stamp, phantom.subset([0]).stamp) == ("", "")


def test_subset_reads_the_chosen_rows():
    whole = open_dataset("phantom", images=40)
    part = whole.subset([30, 2]).subset([1, 0])
    np.testing.assert_array_equal(part.read(0, 64), whole.read(2, 64))
    assert part.table["image"].tolist() == whole.table["image"].iloc[[2, 30]].tolist()
    assert part.fingerprint != whole.fingerprint
    plain = take_rows(lambda row, size: np.full((size, size, 3), row), np.array([7, 9]))
    assert plain(1, 2).max() == 9


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/images", r"^dataset: expected 'phantom' or a path that exists, got 'nowhere/im"),
        ("isic2019-lt", r"^dataset: isic2019-lt is not here; fetch .* `fopro data fetch isic2019`"),
        ("a.zip", r"a.zip: expected text in UTF-8, got a zip archive.*, or unpack an archive$"),
    ],
)
def test_open_dataset_refuses(name, message, tmp_path, monkeypatch):
    monkeypatch.setenv("FOPRO_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.zip").write_bytes(b"PK\3\4\0\xff")
    refuses(message, open_dataset, name)


def test_open_dataset_refuses_wrong_options(tmp_path):
    with pytest.raises(InputError, match=r"a table or column was named, but no table"):
        open_dataset(write_images(tmp_path), class_column="dx")
    refuses(r"^images: expected greater than or equal to 0", open_dataset, "phantom", images=-1)


@pytest.mark.real
def test_open_dataset_reads_ham10000_with_defaults(shared):
    start = time.process_time()
    dataset = open_dataset(shared / "data" / "ham10000")
    assert time.process_time() - start < 20  # decoding its images takes over a minute
    assert dataset.class_names == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert np.bincount(dataset.table["label"]).tolist() == [327, 514, 1099, 115, 1113, 6703, 142]
    assert dataset.table["group"].nunique() == 7470
    assert os.path.exists(dataset.table["path"].iloc[0])


# Row numbers: whatever is none is refused by every function that takes rows.

TAKERS = {
    "batches": lambda packed, rows: batches(packed, rows, batch_size=4),
    "cycle": lambda packed, rows: cycle(packed, rows, batch_size=4),
    "paired_batches": lambda packed, rows: paired_batches(packed, rows, alpha=0.2, batch_size=4),
    "read_pixels": read_pixels,
    "for_torch": lambda packed, rows: packed.for_torch(rows),
    "subset": lambda packed, rows: packed.dataset.subset(rows),
    "audit_pipeline": lambda packed, rows: audit_pipeline(packed, rows, edges=[0, 0.5]),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_rows_are_checked_by_every_function(taker):
    packed = pack(open_dataset("phantom", images=24), 16, progress=False)
    mask = r"^rows: expected row numbers \(n,\), got bool .*; np\.flatnonzero\(mask\) gives those"
    for rows in (packed.labels == 0, (packed.labels == 0).tolist(), pd.Series(packed.labels == 0)):
        refuses(mask, TAKERS[taker], packed, rows)
    refuses(r"^rows: expected 0 to 23, got 0 to 24; was the split", TAKERS[taker], packed, [0, 24])


def test_check_rows_takes_whole_numbers_alone():
    for rows in (range(3), np.arange(3, dtype=np.uint8), []):
        found = check_rows(rows, count=3)
        assert found.dtype == np.int64 and found.tolist() == list(rows)
    for rows, message in (
        ([0.0, 1.7], r"^rows: expected row numbers \(n,\), got float64 "),
        ([[0, 1], [2, 3]], r"^rows: expected row numbers \(n,\), got int64 \(2, 2\)"),
        ([-1, 2], r"^rows: expected 0 to 23, got -1 to 2; "),
        (np.array([2**64 - 1], dtype=np.uint64), r"^rows: expected 0 to 23, got 18446744073709"),
    ):
        refuses(message, check_rows, rows, count=24)


PIXELS = np.random.default_rng(0).integers(0, 256, (30, 3, 16, 16), dtype=np.uint8)
SHAPES = {
    "tensors": lambda x: torch.from_numpy(x),
    "floats": lambda x: torch.from_numpy(x).float() / 255,
    "arrays": lambda x: np.moveaxis(x, 0, -1),
    "Pillow": lambda x: Image.fromarray(np.moveaxis(x, 0, -1)),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_a_torch_data_set_is_packed_as_its_pixels_are(kind, tmp_path):
    source = [(SHAPES[kind](image), row % 3) for row, image in enumerate(PIXELS)]
    groups = [row // 2 for row in range(30)]
    dataset = from_torch(source, class_names=["a", "b", "c"], groups=groups)
    packed = pack(dataset, 16, cache=tmp_path, progress=False)
    assert np.array_equal(np.moveaxis(packed.images, -1, 1), PIXELS)
    split = make_split(packed.dataset)
    owners = [set(np.asarray(groups)[rows]) for rows in (split.train, split.test)]
    assert packed.labels.tolist() == [0, 1, 2] * 10 and not owners[0] & owners[1]
    # The same pixels are the same data; one pixel or label changed is another.
    again = from_torch(source, class_names=["a", "b", "c"], groups=groups)
    changed = [*source[:-1], (source[-1][0], 0)]
    other = from_torch(changed, class_names=["a", "b", "c"], groups=groups)
    assert again.fingerprint == dataset.fingerprint != other.fingerprint


@pytest.mark.parametrize("unknown", [None, float("nan"), ""])
def test_items_of_unknown_group_are_each_their_own(unknown):
    source = [(image, row % 3) for row, image in enumerate(np.moveaxis(PIXELS, 1, -1))]
    dataset = from_torch(source, groups=["p0", "p0", *[unknown] * 28])
    assert dataset.table["group"].nunique() == 29 and not dataset.groups_known
    assert len(make_split(dataset).test) and from_torch(source).table["group"].nunique() == 30


def test_from_torch_refuses_what_is_no_image_or_label():
    image = torch.zeros(3, 8, 8)
    refuses(r"image 0: expected uint8, or a float tensor in \[0, 1\]", from_torch, [(image + 2, 0)])
    refuses(r"label 1: expected a whole number from 0", from_torch, [(image, 0), (image, 1.5)])
    refuses("class_names: expected 2 or more, got 1", from_torch, [(image, 1)], class_names=["one"])
    for source in (None, (item for item in [(image, 0)])):
        refuses(r"^source: expected a map-style data set with len", from_torch, source)

    class Random(list):
        def __getitem__(self, row):
            return torch.rand(3, 8, 8), 0

    refuses("leave out random transforms", from_torch, Random([0]))
