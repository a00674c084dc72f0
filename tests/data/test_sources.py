from pathlib import Path

import pytest

from fopro_lab.data import open_dataset
from fopro_lab.data.readers import (
    list_images,
    number_classes,
    read_folders,
    refuse_twice,
    sort_files,
)
from fopro_lab.errors import InputError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_list_images_passes_over_hidden_and_other_files(tmp_path):
    touch(tmp_path, "b/x.JPG", "a.png", ".hidden/y.png", "b/.z.png", "notes.txt", "Thumbs.db")
    assert list_images(tmp_path) == ["a.png", "b/x.JPG"]


def test_unusual_endings_are_images_and_no_ending_is_told(tmp_path):
    touch(tmp_path, "a/1.jfif", "a/2.JPE", "b/3.jpg", "b/4", "b/5.dcm", "b/.hidden", "6.d/7")
    assert list_images(tmp_path) == ["a/1.jfif", "a/2.JPE", "b/3.jpg"]
    assert sort_files(tmp_path)[1] == ["6.d/7", "b/4", "b/5.dcm"]
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 3 and dataset.passed_over == ("6.d/7", "b/4", "b/5.dcm")
    assert dataset.subset([0]).passed_over == dataset.passed_over


def test_list_images_follows_a_link_once(tmp_path):
    touch(tmp_path, "a/x.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert list_images(tmp_path) == ["a/x.png"]


def test_number_classes_orders_integers_by_value():
    labels, names = number_classes(["10", "9", "11"], where="here")
    assert (labels, names) == ([1, 0, 2], ("9", "10", "11"))


def test_number_classes_orders_names_alphabetically():
    assert number_classes(["b", "a", "b"], where="here") == ([1, 0, 1], ("a", "b"))


def test_number_classes_refuses_a_gap():
    with pytest.raises(
        InputError, match=r"^a.csv: labels: expected integers without a gap, got 0, "
    ):
        number_classes(["0", "1", "3"], where="a.csv")


def test_number_classes_refuses_one_class():
    with pytest.raises(InputError, match=r"^a.csv: expected two classes or more, found 'nv' alone"):
        number_classes(["nv", "nv"], where="a.csv")


@pytest.mark.parametrize(
    ("classes", "pair"),
    [
        (["y", "Y", "n"], "'Y' and 'y'"),
        (["2", "02", "1"], "'02' and '2'"),
        (["nv ", "nv", "mel"], "'nv' and 'nv '"),
        (["nævus", "NÆVUS", "mel"], "'NÆVUS' and 'nævus'"),
        (["e\u0301", "\u00e9", "mel"], "'e\u0301' and '\u00e9'"),  # one letter, encoded twice
        (["2", "02", "nv"], "'02' and '2'"),
    ],
)
def test_number_classes_refuses_names_that_are_nearly_one(classes, pair):
    with pytest.raises(
        InputError, match=rf"^a.csv: classes {pair} look like one and the same; write them alike"
    ):
        number_classes(classes, where="a.csv")


def test_number_classes_keeps_names_that_differ():
    assert number_classes(["a", "a1", "a01", "1"], where="f")[1] == ("1", "a", "a01", "a1")


def test_refuse_twice_tells_how_many():
    refuse_twice(["a", "b"], where="f")
    with pytest.raises(InputError, match=r"^f: expected each image once, got b twice and 1 more;"):
        refuse_twice(iter(["a", "b", "b", "c", "c", "b"]), where="f")


def test_read_folders_makes_a_class_of_each_folder(tmp_path):
    touch(tmp_path, "nv/2.png", "nv/deep/1.png", "mel/1.png", "empty/readme.txt")
    table, names, passed_over = read_folders(tmp_path)
    assert passed_over == ("empty/readme.txt",)
    assert names == ("mel", "nv")
    assert table["image"].tolist() == ["mel/1.png", "nv/2.png", "nv/deep/1.png"]
    assert table["label"].tolist() == [0, 1, 1]
    assert table["group"].tolist() == table["image"].tolist()
    assert set(table["split"]) == {""}


def test_read_folders_honours_given_parts(tmp_path):
    touch(tmp_path, "Train/a/1.png", "Train/b/1.png", "valid/a/2.png", "test/b/3.png")
    table, names, _ = read_folders(tmp_path)
    assert names == ("a", "b")
    assert dict(zip(table["image"], table["split"], strict=True)) == {
        "Train/a/1.png": "train",
        "Train/b/1.png": "train",
        "valid/a/2.png": "val",
        "test/b/3.png": "test",
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/notes.txt"], r"expected images, found none \(bmp, gif, jfif, jpe, jpeg"),
        (["1.png", "a/2.png"], r"expected a folder per class, found 1.png outside of one"),
        (["train/a/1.png", "other/a/1.png"], r"train, val and test folders only, found 'other'"),
        (["a/1.png"], r"expected two classes or more, found 'a' alone"),
    ],
)
def test_read_folders_refuses(tmp_path, names, message):
    touch(tmp_path, *names)
    with pytest.raises(InputError, match=message):
        read_folders(tmp_path)
