import gzip
from pathlib import Path

import pytest
from PIL import Image

from fopro_lab.config import DataConfig
from fopro_lab.data import open_dataset, pack, readers
from fopro_lab.data.readers import read_cells, read_folders
from fopro_lab.data.tables import read_table
from tests.conftest import complaint, refuses


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def write(root: Path, text: str, *, images: str = "1 2 3 4") -> Path:
    """Write a CSV beside some images."""
    touch(root, *(f"images/{name}.jpg" for name in images.split()))
    (root / "labels.csv").write_text(text, encoding="utf-8")
    return root / "labels.csv"


def read(path: Path, **columns: str):
    """Return table and class names."""
    rules = DataConfig(**{f"{kind}_column": name for kind, name in columns.items()})
    return read_table(path, root=path.parent, rules=rules)[:2]


# A folder per class.


def test_read_folders_makes_a_class_of_each_folder(tmp_path):
    touch(tmp_path, "nv/2.JPG", "nv/deep/1.jfif", "mel/1.png", "empty/readme.txt", "nv/.z.png")
    touch(tmp_path, ".hidden/y.png")
    (tmp_path / "nv" / "loop").symlink_to(tmp_path)  # followed once
    listing = read_folders(tmp_path)
    assert listing.passed_over == ("empty/readme.txt",)
    assert listing.notes == ("no class, as they hold no image: folders empty",)
    assert open_dataset(tmp_path).subset([0]).passed_over == listing.passed_over
    assert listing.class_names == ("mel", "nv")
    assert listing.table["image"].tolist() == ["mel/1.png", "nv/2.JPG", "nv/deep/1.jfif"]
    assert listing.table["label"].tolist() == [0, 1, 1]
    assert listing.table["group"].tolist() == listing.table["image"].tolist()
    assert set(listing.table["split"]) == {""}


def test_read_folders_honours_given_parts(tmp_path):
    touch(tmp_path, "Train/a/1.png", "Train/b/1.png", "valid/a/2.png", "test/b/3.png")
    listing = read_folders(tmp_path)
    assert listing.class_names == ("a", "b")
    assert listing.table["split"].tolist() == ["train", "train", "test", "val"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/notes.txt"], r"expected images, found none \(.bmp, .gif, .jfif"),
        (
            ["1.png", "a/2.png"],
            r"folder per class \(CLASS/IMAGE\) or a CSV .* outside of one: 1.png",
        ),
        (
            ["train/a/1.png", "test/2.png"],
            r"\(train/CLASS/IMAGE\) or .* outside of one: test/2.png",
        ),
        (["train/a/1.png", "other/a/1.png"], r"train, val and test folders only, found 'other'"),
    ],
)
def test_read_folders_refuses(tmp_path, names, message):
    touch(tmp_path, *names)
    refuses(message, read_folders, tmp_path)


# The cells of a CSV.


@pytest.mark.parametrize(
    "text",
    [
        "image;dx\n1;nv\n2;mel",
        '"image","dx"\n"1","nv"\n 2 , mel \n',
        "\nimage,dx,\n1,nv,\n2,mel,,\n",
        ",image,dx\n0,1,nv\n1,2,mel\n",
        "image,dx\r1,nv\r2,mel\r",
        "\ufeffimage\tdx\n1\tnv\n2\tmel\n",
    ],
)
def test_read_cells_reads_one_table_in_many_spellings(tmp_path, text):
    frame = read_cells(write(tmp_path, text))
    assert frame.to_dict("list") == {"image": ["1", "2"], "dx": ["nv", "mel"]}
    frame = read_cells(write(tmp_path, '"a, b, c";dx\n1;nv\n'))  # the commas are in quotes
    assert frame.to_dict("list") == {"a, b, c": ["1"], "dx": ["nv"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image,dx\n1,nv,x\n", r"csv: line 2: expected 2 cells as in the header, got 3$"),
        (b'image,dx\n1,"nv\n', r"cannot be read as CSV \(unexpected end of data\)$"),
        (
            b"image,dx\n1,h\xe4m\n",
            r"csv: expected text in UTF-8, got .+; save a table as CSV UTF-8, or",
        ),
        (gzip.compress(b"image,dx\n1,nv\n", mtime=0)[:-9] + b"\0" * 9, r"cannot be read as CSV \("),
    ],
)
def test_read_cells_refuses(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    refuses(message, read_cells, tmp_path / "a.csv")


# A CSV with its images.


def test_read_table_finds_usual_and_named_columns(tmp_path):
    text = "image_id,dx,lesion_id,site,split\n1,nv,L1,A,training\n2,mel,L1,B,Valid\n"
    table, names = read(write(tmp_path, text + "3.jpg,nv,,A,TEST\n"))
    assert names == ("mel", "nv")
    assert table["image"].tolist() == ["1", "2", "3.jpg"]
    assert [Path(file).name for file in table["path"]] == ["1.jpg", "2.jpg", "3.jpg"]
    assert table["label"].tolist() == [1, 0, 1]
    assert table["group"].tolist() == ["L1", "L1", "3.jpg"]
    assert table["source"].tolist() == ["A", "B", "A"]
    assert table["split"].tolist() == ["train", "val", "test"]
    path = write(tmp_path, "Photo;Befund;Person\n images/1.jpg ; a ;P\n2;b;Q\n")
    table, names = read(path, image="Photo", **{"class": "Befund"}, group="Person")
    assert names == ("a", "b") and table["group"].tolist() == ["P", "Q"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("image,label,class_name\n1,0,nv\n2,1,mel\n", ("mel", "nv")),  # names before integers
        ("image,class,target\n1,0.0,nv\n2,1.0,mel\n", ("mel", "nv")),
        ("image,label\n1,1.0\n2,0.0\n3,2.00\n", ("0", "1", "2")),
        ("image,dx\n1,none\n2,Unknown\n3,none\n", ("Unknown", "none")),
    ],
)
def test_read_table_finds_the_classes(tmp_path, text, names):
    assert read(write(tmp_path, text))[1] == names


def test_read_table_keeps_zeros_and_finds_paths_as_windows_writes_them(tmp_path):
    path = write(tmp_path, "image,class,patient\n001,a,007\n002,b,8\n", images="001 002 1")
    table, _ = read(path)
    assert table["group"].tolist() == ["007", "8"]
    assert Path(table["path"].iloc[0]).name == "001.jpg"
    path = write(tmp_path, "image,dx\nimages\\001.jpg,nv\n./images/002.jpg,mel\n")
    assert [Path(file).name for file in read(path)[0]["path"]] == ["001.jpg", "002.jpg"]


@pytest.mark.parametrize("word", ["None", "NULL", "Unknown", "-", "N/A", "NaN", "?", "<na>", ""])
def test_read_table_makes_no_giant_patient_of_a_word_for_not_known(tmp_path, word):
    text = f"image,dx,patient_id,site\n1,nv,{word},{word}\n2,mel,{word},B\n3,nv,L,\n"
    table, _ = read(write(tmp_path, text))
    assert table["group"].tolist() == ["1", "2", "L"]
    assert table["source"].tolist() == ["", "B", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photo,dx\n1,nv\n9,mel\n", r"no image column .* photo, dx; name it: image_column="),
        ("image,label\n1,0\n2,2\n", r"labels: expected integers without a gap, got 0, 2 and"),
        ("image,dx\n1,nv\n2,\n3,\n", r"dx: 2 empty, first of 2; fill it in or remove the row"),
        ("image,dx\n1,e\u0301\n2,\u00e9\n3,n\n", r"csv: classes .* look like one"),
        ("image,dx\n1,nv\n1,mel\n", r"expected each image once, got 1 twice"),
        ("image,label\n1,0\n2,0.5\n", r"integers from 0 as classes, got 0.5; name the column"),
    ],
)
def test_read_table_refuses(tmp_path, text, message):
    refuses(message, read, write(tmp_path, text))


def test_missing_images_are_refused_or_left_to_packing(tmp_path):
    for name in "ab":
        Image.new("RGB", (20, 20)).save(tmp_path / f"{name}.png")
    rows = [f"{name},{dx}" for name, dx in zip("abxy", ("nv", "mel", "nv", "mel"), strict=True)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,dx", *rows]))
    refuses(r"2 of 4 images are not below .*: x, y; give the", open_dataset, tmp_path)
    touch(tmp_path, "copy/b.jpg")  # empty, so no twin
    refuses(r"b: 2 images below .* match", open_dataset, tmp_path)
    (tmp_path / "copy" / "b.jpg").unlink()
    dataset = open_dataset(tmp_path, leave_out=True)
    packed = pack(dataset, 16, progress=False, leave_out=True)
    assert packed.dataset.table["image"].tolist() == ["a", "b"]
    assert set(packed.left_out) == {"x", "y"} and "no such file" in packed.left_out["x"]
    for name in "ab":
        (tmp_path / f"{name}.png").unlink()
    refuses("none of its images, such as a, is there", open_dataset, tmp_path, leave_out=True)


def test_a_packed_table_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MOST_BYTES", 10_000)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"image,class\n" + b"a,b\n" * 100_000))
    told = complaint(readers.read_rows, tmp_path / "a.csv.gz")
    assert told == "expected up to 10.0 kB of text, got more"
