import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fopro_lab.config import DataConfig
from fopro_lab.data import open_dataset
from fopro_lab.data.dataset import check_place
from fopro_lab.data.decoding import read_image
from fopro_lab.data.fetch import find_source, note_complete
from fopro_lab.errors import InputError
from tests.conftest import refuses
from tests.data.publisher import ISIC_IDS, LESIONS, hyperkvasir_zip, isic2019_files, medmnist_npz

TRUTH = "ISIC_2019_Training_GroundTruth.csv"
METADATA = "ISIC_2019_Training_Metadata.csv"


def lay_out(folder: Path, files: dict[str, bytes]) -> Path:
    """Put files where a fetch would: archives unpacked."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        if name.endswith((".zip", ".npz")):
            zipfile.ZipFile(io.BytesIO(content)).extractall(folder)
        else:
            (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def isic(tmp_path) -> Path:
    return lay_out(tmp_path / "mine", isic2019_files())


@pytest.fixture
def fetched(tmp_path, monkeypatch) -> Path:
    """Return a folder of sources in which three benchmarks were fetched."""
    monkeypatch.setenv("FOPRO_DATA", str(tmp_path))
    kvasir, derma = {"images.zip": hyperkvasir_zip()}, {"dermamnist.npz": medmnist_npz()}
    all_files = {"isic2019": isic2019_files(), "hyperkvasir": kvasir, "medmnist:derma": derma}
    for source, files in ((find_source(name), files) for name, files in all_files.items()):
        place = lay_out(tmp_path / source.folder, files)
        for file in (file for file in source.files if not file.is_in(place)):
            (place / file.name).parent.mkdir(exist_ok=True)
            (place / file.name).write_bytes(b"")
        note_complete(place, source)
    return tmp_path


def test_isic_2019_has_classes_by_size_lesions_and_archives(isic):
    dataset = open_dataset(isic)
    table = dataset.table
    assert dataset.name == "mine"
    assert dataset.class_names == ("NV", "MEL", "DF")  # the ranked ones that are here
    assert table["image"].tolist() == list(ISIC_IDS)
    assert table["label"].tolist() == [0, 0, 1, 0, 2, 1]
    assert table["group"].tolist() == [lesion or ISIC_IDS[4] for lesion in LESIONS]
    assert table["source"].tolist() == ["HAM", "HAM", "BCN", "MSK", "", "BCN"]
    assert set(table["split"]) == {""}
    np.testing.assert_array_equal(dataset.read(2, 12), read_image(table["path"].iloc[2], size=12))


def test_isic_2019_reads_copies_with_less(isic):
    images = isic / "ISIC_2019_Training_Input"
    (images / f"{ISIC_IDS[4]}.jpg").rename(images / "ISIC_0000004.jpg")
    (isic / METADATA).unlink()
    table = open_dataset(isic).table
    assert table["image"].iloc[4] == "ISIC_0000004_downsampled"
    assert table["path"].iloc[4].endswith("/ISIC_0000004.jpg")
    assert table["group"].tolist() == table["image"].tolist()
    assert set(table["source"]) == {""}


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (TRUTH, "0.0,1.0,0.0", "1.0,1.0,0.0", r"a 1 in one of NV, .* for 4 images, first ISIC_0"),
        (TRUTH, "0000001", "0000000", r"expected each image once, got ISIC_0000000 twice"),
        (TRUTH, "BKL", "BLK", r"GroundTruth.csv: no column 'BKL'; it has image, MEL, NV"),
        (METADATA, "lesion_id", "lesion", r"Metadata.csv: no column 'lesion_id'; it has image"),
    ],
)
def test_isic_2019_refuses(isic, name, old, new, message):
    path = isic / name
    path.write_text(path.read_text().replace(old, new))
    refuses(message, open_dataset, isic)


def test_hyperkvasir_takes_the_folder_as_class(tmp_path):
    root = lay_out(tmp_path / "kvasir", {"a.zip": hyperkvasir_zip()})
    dataset = open_dataset(root)
    assert dataset.class_names == ("cecum", "polyps", "z-line")
    assert dataset.table["label"].tolist() == [0, 0, 1, 1, 2, 2]
    assert dataset.table["image"].iloc[0] == "ecum-0.jpg"  # as the official splits write it
    assert open_dataset(root / "labeled-images").fingerprint == dataset.fingerprint
    assert dataset.read(5, 8).shape == (8, 8, 3)
    tract = root / "labeled-images" / "lower-gi-tract"
    old = tract / "pathological-findings" / "polyps" / "lyps-0.jpg"
    old.rename(old.with_name("ecum-0.jpg"))
    refuses(r"expected each image once, got ecum-0.jpg twice", open_dataset, root)


@pytest.mark.parametrize("grey", [False, True])
def test_medmnist_gives_the_arrays_images_and_their_split(tmp_path, grey):
    folder = lay_out(tmp_path / "dermamnist", {"a.npz": medmnist_npz(grey=grey)})
    dataset = open_dataset(folder)
    assert len(dataset) == 22 and dataset.class_names[5] == "melanocytic nevi"
    counts = dataset.table["split"].value_counts()
    assert (counts["train"], counts["val"], counts["test"]) == (8, 7, 7)
    for row, part, place in ((0, "train", 0), (7, "train", 7), (8, "val", 0), (21, "test", 6)):
        raw = np.load(folder / f"{part}_images.npy")[place]
        expected = np.repeat(raw[:, :, None], 3, axis=2) if grey else raw
        np.testing.assert_array_equal(dataset.read(row, 28), expected)
        assert dataset.table["label"].iloc[row] == place % 7
    np.testing.assert_array_equal(dataset.subset([21, 8]).read(1, 28), dataset.read(8, 28))
    sent = pickle.dumps(dataset.reader)
    assert len(sent) < 2000  # to another process without its pixels
    np.testing.assert_array_equal(pickle.loads(sent)(3, 14), dataset.read(3, 14))
    other = folder.rename(tmp_path / "elsewhere")  # a set it does not know
    assert open_dataset(other).class_names == tuple("0123456")
    other.rename(folder)
    os.utime(folder / "test_images.npy", ns=(1, 1))
    assert open_dataset(folder).stamp != dataset.stamp != ""


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train_labels", np.full((8, 1), 7, np.uint8), r"labels: expected 0 to 6, got 0 to 7"),
        ("train_labels", np.array([{}] * 8), r"train_labels.npy: no array that can be read"),
    ],
)
def test_medmnist_refuses(tmp_path, name, array, message):
    folder = lay_out(tmp_path / "dermamnist", {"a.npz": medmnist_npz()})
    np.save(folder / f"{name}.npy", array, allow_pickle=True)
    refuses(message, open_dataset, folder)


def test_names_open_what_was_fetched(fetched):
    for name in ("isic2019", "isic2019-lt", "hyperkvasir", "medmnist:derma"):
        check_place(name)
        dataset = open_dataset(name)
        assert dataset.name == name.replace(":", "-")
        assert dataset.read(0, 8).dtype == np.uint8
    by_path = open_dataset(fetched / "isic2019")
    assert open_dataset("isic2019-lt").fingerprint == by_path.fingerprint
    assert open_dataset("medmnist:derma", images=21).name == "medmnist-derma-21"
    assert open_dataset("medmnist:derma").class_names[4] == "melanoma"
    assert DataConfig(dataset="isic2019-lt").rule == "isic2019-lt"
    refuses(r"^isic2019: a column was named, but its", open_dataset, "isic2019", class_column="dx")


def write_npz(path, *, parts=("train", "val", "test"), shape=(28, 28), labels=None, dtype=np.uint8):
    rng, arrays = np.random.default_rng(0), {}
    for part in parts:
        arrays[f"{part}_images"] = rng.integers(0, 256, (8, *shape), dtype=np.uint8).astype(dtype)
        arrays[f"{part}_labels"] = np.arange(8).reshape(8, 1) % 2 if labels is None else labels
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **arrays)
    return arrays


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3), (28, 28, 1)])
@pytest.mark.parametrize("name", ["breastmnist.npz", "own_64.NPZ"])
def test_an_npz_file_is_read_alone_and_in_a_folder(tmp_path, shape, name):
    arrays = write_npz(tmp_path / "sets" / "a.npz", shape=shape)
    (tmp_path / "sets" / "a.npz").rename(tmp_path / "sets" / name)
    alone, inside = open_dataset(tmp_path / "sets" / name), open_dataset(tmp_path / "sets")
    assert alone.fingerprint == inside.fingerprint and alone.stamp == inside.stamp != ""
    assert alone.name == name.partition(".")[0] and len(alone) == 24
    assert alone.table["split"].value_counts().to_dict() == {"train": 8, "val": 8, "test": 8}
    assert alone.class_names == (("malignant", "normal, benign") if "br" in name else ("0", "1"))
    raw = arrays["val_images"][2]
    expected = raw if raw.shape[2:] == (3,) else np.repeat(raw.reshape(28, 28, 1), 3, axis=2)
    np.testing.assert_array_equal(alone.read(10, 28), expected)


def test_npz_files_that_are_not_clear_are_refused(tmp_path):
    sets, objects = tmp_path / "sets", np.array([{}] * 8)
    write_npz(sets / "a.npz", labels=objects)
    message = r"^[^:]*sets/a.npz: train_labels: no array .*it holds objects, which could run code"
    with pytest.raises(InputError, match=message):  # the user's file, not its copy in the cache
        open_dataset(sets)
    write_npz(sets / "b.npz", parts=("val",))
    refuses(r"expected one .npz file, found a.npz, b.npz; give the", open_dataset, sets)
    refuses(r"expected the arrays train_images and .* val_images, ", open_dataset, sets / "b.npz")
    write_npz(sets / "b.npz", parts=("train", "test"))
    assert set(open_dataset(sets / "b.npz").table["split"]) == {"train", "test"}
    for changed, expected in (
        ({"dtype": np.uint16}, r"train_images: .* got uint16 \(8, 28, 28\); scale others to 0"),
        ({"shape": (3, 28, 28)}, r"train_images: expected uint8 \(N, H, W\) or"),
        ({"labels": np.eye(8, dtype=int)}, r"train_labels: .*, got int64 \(8, 8\); save .*argmax"),
        ({"labels": np.array(list("abababab"))}, r"train_labels: .* <U1 \(8,\); save one-hot"),
    ):
        write_npz(sets / "b.npz", **changed)
        refuses(expected, open_dataset, sets / "b.npz")
    write_npz(sets / "b.npz")
    whole = (sets / "b.npz").read_bytes()
    for content in (b"PK\3\4", whole[:200] + b"\xff" * 90 + whole[290:]):
        (sets / "b.npz").write_bytes(content)
        refuses(r"b.npz: (no .npz file that can|damaged, or no zip)", open_dataset, sets / "b.npz")
