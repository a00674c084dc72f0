from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fopro_lab.data import open_dataset, pack
from fopro_lab.data.readers import CsvColumns, read_csv_images
from fopro_lab.errors import InputError

quick = settings(deadline=None, max_examples=60)


@pytest.fixture(scope="module")
def four_images(tmp_path_factory) -> Path:
    """A folder with the images 1 to 4, for CSVs that come and go."""
    root = tmp_path_factory.mktemp("four")
    write(root, "")
    return root


def write(root: Path, text: str, *, encoding: str = "utf-8", images: str = "1 2 3 4") -> Path:
    (root / "images").mkdir()
    for name in images.split():
        (root / "images" / f"{name}.jpg").write_bytes(b"")
    path = root / "labels.csv"
    path.write_text(text, encoding=encoding)
    return path


def read(path: Path, **columns: str):
    return read_csv_images(path, root=path.parent, columns=CsvColumns(**columns))


def test_read_csv_images_finds_usual_columns(tmp_path):
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


def test_read_csv_images_prefers_names_to_integers(tmp_path):
    path = write(tmp_path, "image,label,class_name\n1,0,nv\n2,1,mel\n")
    assert read(path)[1] == ("mel", "nv")


def test_read_csv_images_takes_integers_when_there_are_no_names(tmp_path):
    path = write(tmp_path, "image,label\n1,1\n2,0\n3,1\n")
    table, names = read(path)
    assert (names, table["label"].tolist()) == (("0", "1"), [1, 0, 1])


def test_read_csv_images_takes_named_columns(tmp_path):
    path = write(
        tmp_path, "Photo;Befund;Person\n images/1.jpg ; a ;P\n2;b;Q\n", encoding="utf-8-sig"
    )
    table, names = read(path, image="Photo", label="Befund", group="Person")
    assert names == ("a", "b")
    assert table["group"].tolist() == ["P", "Q"]


def test_read_csv_images_keeps_the_zeros_of_an_id(tmp_path):
    path = write(tmp_path, "image,class,patient\n001,a,007\n002,b,7\n", images="001 002 1")
    table, _ = read(path)
    assert table["group"].tolist() == ["007", "7"]
    assert Path(table["path"].iloc[0]).name == "001.jpg"


def test_read_csv_images_passes_over_a_guessed_split_of_folds(tmp_path):
    path = write(tmp_path, "image,class,split\n1,a,0\n2,b,1\n")
    assert set(read(path)[0]["split"]) == {""}


def test_read_csv_images_reads_whole_numbers_as_integers(tmp_path):
    path = write(tmp_path, "image,label\n1,1.0\n2,0.0\n3,2.00\n")
    table, names = read(path)
    assert (names, table["label"].tolist()) == (("0", "1", "2"), [1, 0, 2])


def test_read_csv_images_prefers_names_to_numbers_of_any_form(tmp_path):
    path = write(tmp_path, "image,class,target\n1,0.0,nv\n2,1.0,mel\n")
    assert read(path)[1] == ("mel", "nv")


def test_read_csv_images_takes_an_undefined_group_as_none(tmp_path):
    path = write(tmp_path, "image,dx,lesion_id,site\n1,nv,nan,NA\n2,mel,nan,B\n3,nv,L,\n")
    table, _ = read(path)
    assert table["group"].tolist() == ["1", "2", "L"]
    assert table["source"].tolist() == ["", "B", ""]


@pytest.mark.parametrize(
    "word", ["None", "none", "NULL", "Unknown", "-", "N/A", "n/a", "NaN", "#N/A", "?", "<na>", ""]
)
def test_read_csv_images_makes_no_giant_patient_of_a_word_for_not_known(tmp_path, word):
    path = write(
        tmp_path, f"image,dx,patient_id,site\n1,nv,{word},{word}\n2,mel,{word},B\n3,nv,L,\n"
    )
    table, _ = read(path)
    assert table["group"].tolist() == ["1", "2", "L"]
    assert table["source"].tolist() == ["", "B", ""]


def test_read_csv_images_lets_a_class_be_called_none_or_unknown(tmp_path):
    path = write(tmp_path, "image,dx\n1,none\n2,Unknown\n3,none\n")
    assert read(path)[1] == ("Unknown", "none")


def test_read_csv_images_finds_paths_as_windows_writes_them(tmp_path):
    path = write(tmp_path, "image,dx\nimages\\1.jpg,nv\n./images/2.jpg,mel\n")
    table, _ = read(path)
    assert [Path(file).name for file in table["path"]] == ["1.jpg", "2.jpg"]


@quick
@given(
    order=st.permutations("1234"),
    labels=st.lists(st.sampled_from(["nv", "mel", " nv "]), min_size=4, max_size=4),
    separator=st.sampled_from(",;\t"),
    mark=st.sampled_from(["", "\ufeff"]),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]),
    suffix=st.sampled_from(["", ".jpg"]),
    quote=st.sampled_from(["", '"']),
)
def test_read_csv_images_does_not_mind_how_a_table_is_written(
    four_images, order, labels, separator, mark, end, suffix, quote
):
    rows = [f"{quote}{i}{suffix}{quote}{separator}{c}" for i, c in zip(order, labels, strict=True)]
    path = four_images / "labels.csv"
    path.write_bytes((mark + end.join([f"image{separator}dx", *rows, ""])).encode())
    wanted = [label.strip() for label in labels]
    if len(set(wanted)) < 2:
        with pytest.raises(InputError, match=r"expected two classes or more, found '\w+' alone$"):
            read(path)
        return
    table, names = read(path)
    assert names == ("mel", "nv")
    assert [Path(file).stem for file in table["path"]] == list(order)
    assert [names[label] for label in table["label"]] == wanted


@quick
@given(
    images=st.lists(st.sampled_from(["1", "2", "2.jpg", "3", "9", "", "../1"]), max_size=5),
    labels=st.lists(st.sampled_from(["nv", "mel", "0", "2", "1.5", "-1", "nan", ""]), max_size=5),
    groups=st.lists(st.sampled_from(["", "L1", "nan"]), min_size=5, max_size=5),
)
def test_read_csv_images_answers_bad_rows_with_one_line(four_images, images, labels, groups):
    rows = [",".join(row) for row in zip(images, labels, groups, strict=False)]
    path = four_images / "labels.csv"
    path.write_text("\n".join(["image,dx,lesion_id", *rows]))
    images, labels = images[: len(rows)], labels[: len(rows)]
    stems = [Path(image).stem for image in images]
    broken = (
        not rows
        or {"", "nan"} & set(labels)
        or not set(images) <= {"1", "2", "2.jpg", "3"}
        or len(set(stems)) < len(stems)
        or len(set(labels)) < 2
        or (set(labels) <= {"0", "2", "1.5", "-1"})  # none of them are integers without a gap
    )
    try:
        table, names = read(path)
    except InputError as error:
        assert broken and "\n" not in str(error)
    else:
        assert not broken
        assert [names[label] for label in table["label"]] == labels


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        (
            "image,dx\n1,nv\n2,mel\n",
            {},
            r"labels.csv: no image column under a usual name; it has image, dx; "
            r"name it: image_column=...$",
        ),
        ("image,dx\n1,nv\n", {"label": "diag"}, r"no column 'diag'; it has image, dx$"),
        ("image,dx\n1,nv\n2,\n3,\n", {}, r"dx: 2 empty, first of 2; fill it in or remove the row"),
        ("image,dx\n,nv\n2,mel\n", {}, r"image: 1 empty, first of line 2;"),
        ("image,dx\n1,nv\n1,mel\n", {}, r"expected each image once, got 1 twice"),
        ("image,dx\n1,nv\n1.jpg,mel\n", {}, r"expected each image once, got .*1.jpg twice"),
        ("image,dx\n1,nv\n1,nv\n2,mel\n", {}, r"got 1 twice; remove the repeated"),
        ("image,dx\n1,nv\n2,nan\n", {}, r"dx: 1 empty, first of 2; fill it in or remove the row$"),
        (
            "image,label\n1,0\n2,0.5\n",
            {},
            r"label: expected names or integers from 0 as classes, got 0.5; name the column of "
            r"classes: class_column=...$",
        ),
        ("image,label\n1,-1\n2,1\n", {}, r"integers from 0 as classes, got -1; name"),
        ("image,dx\n1,nv\n2\n", {}, r"labels.csv: line 3: expected 2 cells as in the header"),
        ("image,label\n1,0\n2,2\n", {}, r"without a gap, got 0, 2 and no 1; renumber them"),
        ("image,dx\n1,nv\n9,mel\n8,a\n", {}, r"2 of 3 images are not below .*: 9, 8; the CSV"),
        ("image,dx\n", {}, r"expected a row per image, found none"),
        ("", {}, r"cannot be read as CSV"),
        ('image,dx\n1,"nv\n', {}, r"cannot be read as CSV"),
        (
            "image,dx,part\n1,a,train\n2,b,7\n",
            {"split": "part"},
            r"part: expected train, val or test, got '7'",
        ),
    ],
)
def test_read_csv_images_refuses(tmp_path, text, columns, message):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message):
        read(path, **columns)


def test_read_csv_images_refuses_two_files_of_one_name(tmp_path):
    path = write(tmp_path, "image,dx\n1,nv\n2,mel\n")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "1.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1: 2 images below .* match"):
        read(path)


def test_read_csv_images_refuses_bytes_that_are_no_text(tmp_path):
    path = write(tmp_path, "")
    path.write_bytes(b"image,dx\n\xff\xfe\x00,a\n")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        read(path)


def test_missing_images_are_refused_or_kept_for_the_packing_to_tell(tmp_path):
    for name in "ab":
        Image.new("RGB", (20, 20)).save(tmp_path / f"{name}.png")
    rows = [f"{name},{dx}" for name, dx in zip("abxy", ("nv", "mel", "nv", "mel"), strict=True)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,dx", *rows]))
    with pytest.raises(InputError, match=r"2 of 4 images are not below .*: x, y; the CSV"):
        open_dataset(tmp_path)
    dataset = open_dataset(tmp_path, leave_out=True)
    packed = pack(dataset, 16, progress=False, leave_out=True)
    assert packed.dataset.table["image"].tolist() == ["a", "b"]
    assert set(packed.left_out) == {"x", "y"} and "no such file" in packed.left_out["x"]
    for name in "ab":
        (tmp_path / f"{name}.png").unlink()
    with pytest.raises(InputError, match="4 of 4 images are not below"):
        open_dataset(tmp_path, leave_out=True)
