from pathlib import Path

import pytest

from fopro_lab.data.csv_sources import CsvColumns, read_csv_pictures
from fopro_lab.errors import InputError


def write(root: Path, text: str, *, encoding: str = "utf-8", pictures: str = "1 2 3 4") -> Path:
    (root / "images").mkdir()
    for name in pictures.split():
        (root / "images" / f"{name}.jpg").write_bytes(b"")
    path = root / "labels.csv"
    path.write_text(text, encoding=encoding)
    return path


def read(path: Path, **columns: str):
    return read_csv_pictures(path, root=path.parent, columns=CsvColumns(**columns))


def test_read_csv_pictures_finds_usual_columns(tmp_path):
    path = write(
        tmp_path,
        "image_id,dx,lesion_id,site,split\n1,nv,L1,A,training\n2,mel,L1,B,Valid\n3.jpg,nv,,A,TEST\n",
    )
    table, names = read(path)
    assert names == ("mel", "nv")
    assert table["image"].tolist() == ["1", "2", "3.jpg"]
    assert [Path(file).name for file in table["path"]] == ["1.jpg", "2.jpg", "3.jpg"]
    assert table["label"].tolist() == [1, 0, 1]
    assert table["group"].tolist() == ["L1", "L1", "3.jpg"]
    assert table["source"].tolist() == ["A", "B", "A"]
    assert table["split"].tolist() == ["train", "val", "test"]


def test_read_csv_pictures_prefers_names_to_integers(tmp_path):
    path = write(tmp_path, "image,label,class_name\n1,0,nv\n2,1,mel\n")
    assert read(path)[1] == ("mel", "nv")


def test_read_csv_pictures_takes_integers_when_there_are_no_names(tmp_path):
    path = write(tmp_path, "image,label\n1,1\n2,0\n3,1\n")
    table, names = read(path)
    assert (names, table["label"].tolist()) == (("0", "1"), [1, 0, 1])


def test_read_csv_pictures_takes_named_columns(tmp_path):
    path = write(
        tmp_path, "Photo;Befund;Person\n images/1.jpg ; a ;P\n2;b;Q\n", encoding="utf-8-sig"
    )
    table, names = read(path, image="Photo", label="Befund", group="Person")
    assert names == ("a", "b")
    assert table["group"].tolist() == ["P", "Q"]


def test_read_csv_pictures_keeps_the_zeros_of_an_id(tmp_path):
    path = write(tmp_path, "image,class,patient\n001,a,007\n002,b,7\n", pictures="001 002 1")
    table, _ = read(path)
    assert table["group"].tolist() == ["007", "7"]
    assert Path(table["path"].iloc[0]).name == "001.jpg"


def test_read_csv_pictures_passes_over_a_guessed_split_of_folds(tmp_path):
    path = write(tmp_path, "image,class,split\n1,a,0\n2,b,1\n")
    assert set(read(path)[0]["split"]) == {""}


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        (
            "picture,dx\n1,nv\n2,mel\n",
            {},
            r"labels.csv: no image column under a usual name; it has picture, dx; "
            r"name it: image_column=...$",
        ),
        ("image,dx\n1,nv\n", {"label": "diag"}, r"no column 'diag'; it has image, dx$"),
        ("image,dx\n1,nv\n2,\n3,\n", {}, r"dx: 2 empty, first of 2; fill it in or remove the row"),
        ("image,dx\n,nv\n2,mel\n", {}, r"image: 1 empty, first of line 2;"),
        ("image,dx\n1,nv\n1,mel\n", {}, r"expected one row per picture, got 1 twice"),
        ("image,dx\n1,nv\n1.jpg,mel\n", {}, r"expected one row per picture, got .*1.jpg twice"),
        ("image,label\n1,0\n2,2\n", {}, r"without a gap, got 0, 2 and no 1; renumber them"),
        ("image,dx\n1,nv\n9,mel\n8,a\n", {}, r"2 of 3 pictures are not below .*: 9, 8; the CSV"),
        ("image,dx\n", {}, r"expected a row per picture, found none"),
        ("", {}, r"cannot be read as CSV"),
        ('image,dx\n1,"nv\n', {}, r"cannot be read as CSV"),
        (
            "image,dx,part\n1,a,train\n2,b,7\n",
            {"split": "part"},
            r"part: expected train, val or test, got '7'",
        ),
    ],
)
def test_read_csv_pictures_refuses(tmp_path, text, columns, message):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message):
        read(path, **columns)


def test_read_csv_pictures_refuses_two_files_of_one_name(tmp_path):
    path = write(tmp_path, "image,dx\n1,nv\n2,mel\n")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "1.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1: 2 pictures below .* match"):
        read(path)


def test_read_csv_pictures_refuses_bytes_that_are_no_text(tmp_path):
    path = write(tmp_path, "")
    path.write_bytes(b"image,dx\n\xff\xfe\x00,a\n")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        read(path)
