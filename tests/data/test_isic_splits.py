from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fopro_lab.data import Dataset, isic2019_lt_counts, open_dataset
from fopro_lab.data.published_splits import (
    CLASSES,
    RANKED,
    RATIOS,
    make_isic2019_lt,
    read_isic_part,
)
from fopro_lab.errors import InputError
from tests.data.toys import altered

PARTS = ("train", "val", "test")
SIZES = {"train": 4, "val": 2, "test": 3}  # images of each class in the toy files
MADE_UP = "train_skin2_0.005.csv, val_skin2_0.005.csv, test_skin2_0.005.csv: "
MADE_UP += "not the published files"
OWN = {"MEL": "mel", "NV": "nv", "BCC": "bcc", "AK": "akiec", "SCC": "akiec"}


def dataset_of(rows: list[tuple[str, str]], *, name: str = "toy", lesions=None) -> Dataset:
    """Make a data set without pixels of (image, class)."""
    names = tuple(sorted({own for _, own in rows}))
    table = pd.DataFrame(rows, columns=["image", "class"])
    table["label"] = table["class"].map(names.index)
    table = table.assign(path="", source="", split="", group=lesions or table["image"])
    return Dataset(name, table, names, lambda row, size: np.zeros((size, size, 3), np.uint8), "f")


def toy_rows(classes=CLASSES) -> list[tuple[str, str, str]]:
    """List (image, part, published class) of the toy files."""
    return [(f"{c}_{p}_{i}", p, c) for p in PARTS for c in classes for i in range(SIZES[p])]


def write_files(folder: Path, rows=None, *, stem: str = "skin2_0.005") -> Path:
    for part in PARTS:
        lines = [
            f"{image},{CLASSES.index(c)},{RANKED.index(c)}"
            for image, p, c in (toy_rows() if rows is None else rows)
            if p == part
        ]
        (folder / f"{part}_{stem}.csv").write_text(
            "\n".join(["image,finding_name,finding", *lines]) + "\n"
        )
    return folder


def ids(dataset: Dataset, rows: np.ndarray) -> set[str]:
    return set(dataset.table["image"].iloc[rows])


def toy_protocol(folder: Path) -> str:
    """Name the split of the toy files, which are not the published ones."""
    return "isic2019-lt/fopro/0.005/fold2" + altered(
        *(folder / f"{part}_skin2_0.005.csv" for part in PARTS)
    )


def split_toy(folder: Path, dataset: Dataset, **options):
    return make_isic2019_lt(dataset, ratio=0.005, fold=2, files=folder, **options)


def test_make_isic2019_lt_takes_each_part_from_its_own_file(tmp_path):
    dataset = dataset_of([(f"{image}.jpg", c) for image, _, c in reversed(toy_rows())])
    split = split_toy(write_files(tmp_path), dataset)
    for part in PARTS:  # a swapped validation and test would be caught here
        wanted = {f"{image}.jpg" for image, p, _ in toy_rows() if p == part}
        assert ids(dataset, getattr(split, part)) == wanted
    assert split.protocol == toy_protocol(tmp_path)
    assert split.notes == (MADE_UP,)


def test_make_isic2019_lt_leaves_other_images_out(tmp_path):
    rows = [(image, c) for image, _, c in toy_rows()]
    dataset = dataset_of([*rows, ("more", "NV"), ("most", "DF")])
    split = split_toy(write_files(tmp_path), dataset)
    assert len(split.train) + len(split.val) + len(split.test) == len(dataset) - 2
    assert split.protocol == toy_protocol(tmp_path)


def test_make_isic2019_lt_goes_on_without_images_only_if_told(tmp_path):
    rows = [(image, c) for image, _, c in toy_rows() if image not in ("NV_test_0", "DF_train_1")]
    write_files(tmp_path)
    with pytest.raises(InputError, match=r"2 of its 72 images are not in toy, first DF_train_1"):
        split_toy(tmp_path, dataset_of(rows))
    dataset = dataset_of(rows)
    split = split_toy(tmp_path, dataset, leave_out=True)
    assert split.protocol == toy_protocol(tmp_path) + "/part-70of72-toy"
    assert split.notes[1:] == ("70 of the 72 images that the published split names are here",)
    assert ids(dataset, split.test) == {image for image, p, _ in toy_rows() if p == "test"} - {
        "NV_test_0"
    }


def test_make_isic2019_lt_joins_classes_that_are_one_here_and_misses_absent_ones(tmp_path):
    dataset = dataset_of([(image, OWN[c]) for image, _, c in toy_rows(tuple(OWN))])
    split = split_toy(write_files(tmp_path), dataset, leave_out=True)
    assert split.protocol == toy_protocol(tmp_path) + "/part-45of72-toy/4classes"
    assert split.class_counts(dataset).tolist() == [8, 4, 4, 4]
    assert split.notes[2:] == (
        "AK and SCC are one class here, 'akiec'",
        "no image of BKL, DF, VASC is here",
    )


def test_make_isic2019_lt_allows_a_class_without_test_images_and_notes_it(tmp_path):
    rows = [(i, c) for i, p, c in toy_rows() if (p, c) not in [("test", "DF"), ("val", "VASC")]]
    split = split_toy(write_files(tmp_path), dataset_of(rows), leave_out=True)
    assert split.notes[2:] == ("val has no image of VASC", "test has no image of DF")


def test_make_isic2019_lt_keeps_leaks_and_counts_them(tmp_path):
    rows = toy_rows()
    lesion = {"NV_test_0": "L", "NV_train_0": "L", "NV_train_1": "L", "DF_val_0": "M"}
    lesion["DF_test_1"] = "M"
    dataset = dataset_of(
        [(image, c) for image, _, c in rows], lesions=[lesion.get(i, i) for i, _, _ in rows]
    )
    split = split_toy(write_files(tmp_path), dataset)
    assert split.notes[1:] == ("2 groups have images in two parts or more, as published",)
    assert split.shared_groups(dataset) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: [(i, "BCC" if i == "NV_val_1" else c) for i, _, c in rows],
            r": 1 of 72 images have another class in toy, first NV_val_1: 'BCC' where the split "
            r"says 'NV'; mend the labels$",
        ),
        (
            lambda rows: [(i, c) for i, p, c in rows if (p, c) != ("train", "SCC")],
            r"^toy: class 'SCC' has no image in train; add images, leave the class out",
        ),
        (
            lambda rows: [*((i, c) for i, _, c in rows), ("else", "UNK")],
            r"^toy: class 'UNK' has no image in train;",
        ),
        (lambda rows: [("a", "NV"), ("b", "MEL")], r"none of its 72 images is in toy, first"),
    ],
)
def test_make_isic2019_lt_refuses_images_that_do_not_fit(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        split_toy(write_files(tmp_path), dataset_of(change(toy_rows())), leave_out=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"ratio": 0.05},
            r"^tail_ratio: expected one of the published 0.01, 0.005, 0.002, got 0.05; "
            r"split_rule=long-tail takes any$",
        ),
        ({"ratio": 0.01, "fold": 6}, r"^fold: expected 1 to 5, got 6$"),
        ({"ratio": 0.01, "files": Path("none")}, r"^split_files: none: no such folder or file$"),
    ],
)
def test_make_isic2019_lt_refuses_a_split_that_is_none(options, message):
    with pytest.raises(InputError, match=message):
        make_isic2019_lt(dataset_of([("a", "NV"), ("b", "MEL")]), **options)


def test_make_isic2019_lt_refuses_files_that_name_an_image_in_two_parts(tmp_path):
    rows = [*toy_rows(), ("NV_train_0", "test", "NV")]
    dataset = dataset_of([(image, c) for image, _, c in toy_rows()])
    with pytest.raises(InputError, match=r"expected each image once, got NV_train_0 twice;"):
        split_toy(write_files(tmp_path, rows), dataset)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,finding\na,0\n",
            r"a.csv: expected a column 'finding_name', it has image, finding$",
        ),
        (
            "image,finding_name,finding\na,1,0\nb,1,1\n",
            r"a.csv: b: expected finding_name and finding of one class, such as 1 and 0 of NV, "
            r"got 1 and 1$",
        ),
        ("image,finding_name,finding\na,NV,0\n", r"a: .* got NV and 0$"),
        ("image,finding_name,finding\na,,0\n", r"a: .* got nothing and 0$"),
        ("image,finding_name,finding\n", r"expected a row per image, found none$"),
    ],
)
def test_read_isic_part_refuses(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_isic_part(tmp_path / "a.csv")


@pytest.fixture(scope="module")
def published(shared) -> Path:
    return shared / "data" / "isic2019_lt_splits"


@pytest.mark.real
def test_all_45_published_files_are_read_as_they_are(published):
    """The 15 splits, on a stand-in for ISIC 2019: all named images with their classes."""
    raw = {path.stem: pd.read_csv(path) for path in sorted(published.glob("*.csv"))}
    assert len(raw) == 45
    everything = pd.concat(raw.values()).drop_duplicates("image").sort_values("image")
    order = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
    named = [order[number] for number in everything["finding_name"]]
    dataset = dataset_of([(f"{i}.jpg", c) for i, c in zip(everything["image"], named, strict=True)])
    labels = dataset.table["label"].to_numpy()
    ranked = [dataset.class_names.index(c) for c in RANKED]
    for ratio in RATIOS:
        for fold in range(1, 6):
            split = make_isic2019_lt(dataset, ratio=ratio, fold=fold, files=published)
            for part in PARTS:
                wanted = set(raw[f"{part}_skin{fold}_{ratio:g}"]["image"] + ".jpg")
                assert ids(dataset, getattr(split, part)) == wanted
            assert split.class_counts(dataset)[ranked].tolist() == isic2019_lt_counts(ratio)
            assert np.bincount(labels[split.val]).tolist() == [50] * 8
            assert np.bincount(labels[split.test]).tolist() == [100] * 8
            assert split.protocol == f"isic2019-lt/fopro/{ratio:g}/fold{fold}"
            assert split.notes == ()


@pytest.mark.real
def test_the_published_files_share_lesions_of_ham10000_between_their_parts(shared, published):
    dataset = open_dataset(shared / "data" / "ham10000")
    with pytest.raises(InputError, match=r"14,171 of its 23,541 images are not in ham10000"):
        make_isic2019_lt(dataset, ratio=0.005, files=published)
    split = make_isic2019_lt(dataset, ratio=0.005, files=published, leave_out=True)
    assert split.protocol == "isic2019-lt/fopro/0.005/fold1/part-9370of23541-ham10000/7classes"
    assert (len(split.train), len(split.val), len(split.test)) == (8972, 134, 264)
    # Counted apart from this code, by joining the raw files with the lesion ids.
    assert split.shared_groups(dataset) == 143
    group = dataset.table["group"].to_numpy()
    assert np.isin(group[split.test], group[split.train]).sum() == 93
    assert split.notes == (
        "9,370 of the 23,541 images that the published split names are here",
        "AK and SCC are one class here, 'akiec'",
        "143 groups have images in two parts or more, as published",
    )
