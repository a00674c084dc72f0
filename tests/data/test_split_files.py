import shutil
from pathlib import Path

import pytest

from fopro_lab.data.published_splits import OFFICIAL_FOLDS, find_split_files, tell_altered
from fopro_lab.errors import InputError
from tests.data.toys import altered

NAMES = [f"{part}_skin1_0.005.csv" for part in ("train", "val", "test")]


def test_find_split_files_takes_a_folder_or_the_one_file(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).touch()
    find = {"fetched": "fopro-splits", "knob": "fold=1"}
    assert find_split_files(["b.csv", "a.csv"], files=tmp_path, **find) == [
        tmp_path / "b.csv",
        tmp_path / "a.csv",
    ]
    other = tmp_path / "a.csv"
    assert find_split_files(["2_fold_split.csv"], files=other, **find) == [other]
    with pytest.raises(InputError, match=r"^split_files: .*: expected the published c.csv for f"):
        find_split_files(["a.csv", "c.csv"], files=tmp_path, **find)


def test_find_split_files_looks_where_they_are_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("FOPRO_DATA", str(tmp_path))
    with pytest.raises(
        InputError,
        match=r"^split_files: fopro-splits is not fetched; say `fopro data fetch fopro-splits`, or "
        r"give the folder that holds a.csv$",
    ):
        find_split_files(["a.csv"], files=None, fetched="fopro-splits", knob="fold=1")
    monkeypatch.setattr("fopro_lab.data.fetch.fetched_place", lambda name: tmp_path / name)
    official = tmp_path / "hyperkvasir" / "official_splits"
    official.mkdir(parents=True)
    (official / "a.csv").touch()
    found = find_split_files(["a.csv"], files=None, fetched="hyperkvasir", knob="folds=2")
    assert found == [official / "a.csv"]


def tell(folder: Path) -> tuple[str, list[str]]:
    return tell_altered([folder / name for name in NAMES], NAMES, fetched="fopro-splits")


def test_tell_altered_names_made_up_files(tmp_path):
    for name in NAMES:
        (tmp_path / name).write_text(name)
    paths = [tmp_path / name for name in NAMES]
    assert tell(tmp_path) == (
        altered(*paths),
        [
            "train_skin1_0.005.csv, val_skin1_0.005.csv, test_skin1_0.005.csv: "
            "not the published files"
        ],
    )
    before = altered(*paths)
    paths[1].write_text("another")
    assert tell(tmp_path)[0] == altered(*paths) != before


def test_tell_altered_says_that_a_file_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"a.csv: cannot be read \(No such file"):
        tell_altered([tmp_path / "a.csv"], ["5_fold_split.csv"], fetched="hyperkvasir")


@pytest.fixture
def copied(shared, tmp_path) -> Path:
    """Copy the three files of fold 1 at 1:200, as published."""
    for name in NAMES:
        shutil.copyfile(shared / "data" / "isic2019_lt_splits" / name, tmp_path / name)
    return tmp_path


@pytest.mark.real
def test_tell_altered_is_silent_on_published_files(shared, copied):
    assert tell(copied) == ("", [])
    for folds in OFFICIAL_FOLDS:
        name = f"{folds}_fold_split.csv"
        path = shared / "data" / "hyperkvasir" / name
        assert tell_altered([path], [name], fetched="hyperkvasir") == ("", [])


@pytest.mark.real
def test_tell_altered_sees_half_a_test_file_and_a_single_byte(copied):
    path = copied / NAMES[2]
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) // 2]))
    half, notes = tell(copied)
    assert notes == ["test_skin1_0.005.csv: not the published file"]
    path.write_bytes(whole.replace(b"\n", b"\r\n"))  # the same images, but not the same bytes
    again = tell(copied)[0]
    assert half.startswith("/altered-") and again.startswith("/altered-") and half != again
    path.write_bytes(whole)
    assert tell(copied) == ("", [])


@pytest.mark.real
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_tell_altered_refuses_validation_and_test_exchanged(copied, line_end):
    val, test = copied / NAMES[1], copied / NAMES[2]
    first, second = (path.read_bytes().replace(b"\n", line_end) for path in (val, test))
    val.write_bytes(second)
    test.write_bytes(first)
    with pytest.raises(
        InputError,
        match=r"^split_files: .*val_skin1_0.005.csv: expected the published val_skin1_0.005.csv, "
        r"got the content of test_skin1_0.005.csv; files are exchanged: give each its own name",
    ):
        tell(copied)


@pytest.mark.real
def test_tell_altered_refuses_two_folds_as_five(shared):
    path = shared / "data" / "hyperkvasir" / "2_fold_split.csv"
    with pytest.raises(InputError, match=r"published 5_fold_split.csv, got the content of 2_fold_"):
        tell_altered([path], ["5_fold_split.csv"], fetched="hyperkvasir")
