"""Tables and folders as archives ship them; each test builds its layout small."""

import gzip
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fopro_lab.checks import examine, open_for_checks
from fopro_lab.config import DataConfig
from fopro_lab.data import make_split, open_dataset
from fopro_lab.errors import InputError
from tests.conftest import refuses


def lay_out(root: Path, files: dict[str, str | bytes], *, images: str = "") -> Path:
    """Write text files and empty images."""
    for name in images.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return root


ROWS = "image_id,dx,lesion_id\n1,nv,A\n2,mel,B\n3,nv,B\n"
PARTS = "HAM_images_part_1/1.jpg HAM_images_part_1/2.jpg HAM_images_part_2/3.jpg"
TABS = ROWS.replace(",", "\t")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("HAM10000_metadata", ROWS),
        ("metadata.CSV", ROWS),
        ("metadata.tab", TABS),
        ("metadata.txt", TABS),
        ("metadata.txt", TABS.encode("utf-16")),
        ("metadata.txt", ROWS.replace(",", " ")),
        ("metadata.psv", ROWS.replace(",", "|")),
        ("metadata.csv.gz", gzip.compress(ROWS.encode(), mtime=0)),
        ("tables/of/labels.csv", ROWS),
    ],
)
def test_a_table_is_found_whatever_it_is_called(tmp_path, name, content):
    root = lay_out(tmp_path, {name: content, "LICENSE": "a, b\nc, d\n"}, images=PARTS)
    dataset = open_dataset(root)
    assert dataset.class_names == ("mel", "nv")
    assert dataset.table["group"].tolist() == ["A", "B", "B"]
    assert Path(dataset.table["path"].iloc[2]).parent.name == "HAM_images_part_2"
    named = open_dataset(root / name, image_dir=root)
    assert named.fingerprint == dataset.fingerprint


@pytest.mark.parametrize(
    ("files", "images", "message"),
    [
        ({}, PARTS, r"'HAM_images_part_1' has the name of an archive's part, not of a class"),
        ({}, "images/1.jpg masks/1.jpg", r"folder 'images' has the name"),
        ({}, "valid/1.jpg test/2.jpg", r"folder 'test' has"),
        ({}, "images/nv/1.jpg images/mel/2.jpg", r"found folders in each of images, such as ima"),
        ({"a.csv": "age,sex\n1,m\n2,f\n"}, "nv/a.jpg mel/b.jpg", r"a.csv \(no image column .*labe"),
        ({"a.csv": "image,age\n1,3\n2,4\n"}, "nv/1.jpg mel/2.jpg", r"a.csv \(no class column .*"),
        ({"a.xlsx": b"PK\3\4"}, "nv/1.jpg mel/2.jpg", r"a .xlsx file is not read here; save it"),
        ({"a.csv": ROWS, "b.csv": ROWS}, PARTS, r"found several tables, a.csv, b.csv; name it"),
        (
            {"a.csv": "1.jpg,nv\n2.jpg,mel\n"},
            PARTS,
            r"names of columns in the first line, got an image",
        ),
        ({"nv/1.dcm": b""}, "mel/2.jpg bcc/1.jpg", r"a class has only 1 .dcm files, first nv/1"),
        ({"nv/1.dcm": b"", "mel/2.DCM": b""}, "", r"found 2 .dcm files, .* convert them to PNG"),
    ],
)
def test_folders_are_not_taken_for_classes_in_silence(tmp_path, files, images, message):
    refuses(message, open_dataset, lay_out(tmp_path, files, images=images))


def test_masks_and_unread_kinds_are_passed_over_and_said(tmp_path, capsys):
    images = "nv/a_(1).png nv/a_(1)_mask.png mel/images/2.png mel/masks/2.png mel/my_mask.png"
    files = {name.replace("a_(", "a ("): b"" for name in images.split()}  # as in BUSI
    root = lay_out(tmp_path, files | {"nv/a (1)_mask_1.png": b"", "mel/3.dcm": b""})
    lay_out(root, {}, images="mel/3.png")
    dataset = open_dataset(root)
    kept = ["mel/3.png", "mel/images/2.png", "mel/my_mask.png", "nv/a (1).png"]
    assert dataset.table["image"].tolist() == kept
    assert "nv/a (1)_mask.png" in dataset.passed_over
    told = capsys.readouterr().err
    assert "3 masks passed over, first mel/masks/2.png" in told and "1 .dcm files" in told
    assert dataset.subset([0]).notes == dataset.notes and len(dataset.notes) == 2


def test_of_several_tables_one_must_be_named_and_lists_of_parts_are_said(tmp_path, capsys):
    boxes = "Image Index,Finding Label,x\n1.png,a,3\n"
    files = {"Data_Entry.csv": "Image Index,Finding Labels,Patient ID\n1.png,a,7\n2.png,b,7\n"}
    files |= {"BBox.csv": boxes, "more/test_list.txt": "2.png\n"}
    root = lay_out(tmp_path, files, images="images_001/1.png images_002/2.png")
    refuses(r"found several tables, BBox.csv, Data_Entry.csv; name it", open_dataset, root)
    (root / "BBox.csv").unlink()
    dataset = open_dataset(root)
    assert len(dataset) == 2 and set(dataset.table["group"]) == {"7"}
    told = capsys.readouterr().err
    assert "Data_Entry.csv: image in" in told and "not used: more/test_list.txt" in told


# Columns of well-known tables.


@pytest.mark.parametrize(
    ("text", "classes", "group"),
    [
        ("patient_id,lesion_id,diagnostic,img_id\nP1,7,NEV,1.png\nP1,8,BCC,2\n", "BCC NEV", "P1"),
        ("id_code,diagnosis\n1,0\n2,1\n", "0 1", "1"),
        ("image,level\n1,0\n2,1\n", "0 1", "1"),
        ("isic_id,diagnosis,patient_id,lesion_id\n1,nv,,L\n2,mel,,\n", "mel nv", "L"),
        ("Image Index,Finding Labels,Patient ID\n1.png,No,5\n2.png,Mass,5\n", "Mass No", "5"),
        ("diagnosis,case_num,derm,clinic\nnv,9,x/1.png,3\nmel,8,x/2.png,4\n", "mel nv", "9"),
        ("id,dx_id,dx\n1,0,nv\n2,1,mel\n", "mel nv", "1"),
        ("Photo,sex,target\n1,m,b\n2,f,a\n", "a b", "1"),  # found by the names on disk
        ("image,NEV,akiec,NONE\n1,1.0,0.0,0\n2,0.0,1.0,0\n", "NEV akiec", "1"),
        ("image,label\n1,\"['b']\"\n2,\"['a']\"\n", "a b", "1"),
        ("image,label\n1,a|a\n2,Melanoma; \n", "Melanoma a", "1"),
        ('image,dx\n1,a/b\n2,"in situ, x"\n', "a/b|in situ, x", "1"),
    ],
)
def test_usual_tables_are_read_unaided(tmp_path, text, classes, group):
    images = "sub/1.png sub/2.png" + " sub/3.png" * ("3," in text)
    dataset = open_dataset(lay_out(tmp_path, {"t.csv": text}, images=images))
    assert dataset.class_names == tuple(classes.split("|" if "|" in classes else " "))
    assert dataset.table["group"].iloc[0] == group
    assert dataset.notes[0].startswith("t.csv: image in '")


def test_one_hot_columns_are_asked_for_where_they_are_not_clear(tmp_path):
    files = {"t.csv": "image,A,B,C,D\n1,1,0,1,0\n2,0,1,0,1\n"}  # A and B may be the sex
    root = lay_out(tmp_path, files, images="1.png 2.png")
    refuses(r"A, B, C, D, do not have one 1 in each row; .*_column=A,B,C", open_dataset, root)
    assert open_dataset(root, class_column="C, D").class_names == ("C", "D")
    lay_out(root, {"t.csv": "image,A,B,C\n1,1,1,0\n2,0,1,0\n"})
    refuses(r"1 of 2 images have several classes", open_dataset, root, class_column="A,B,C")
    dataset = open_dataset(root, class_column="A,B,C", multi_label="first")
    assert dataset.class_names == ("A", "B") and "no image of C" in dataset.notes
    refuses(r"no column 'A,E'; it has image, A, B, C", open_dataset, root, class_column="A,E")


@pytest.mark.parametrize("cell", ["a|b", "a; b", "\"['a', 'b']\"", '"a, b"', "a/b", "a + b"])
def test_several_labels_are_refused_with_a_choice(tmp_path, cell):
    text = f"image,label\n1,a\n2,b\n3,{cell}\n"
    root = lay_out(tmp_path / "x", {"t.csv": text}, images="1.png 2.png 3.png")
    refuses(r"1 of 3 images .* multi_label=first, or .*=leave-out$", open_dataset, root)
    first, dropped = (open_dataset(root, multi_label=how) for how in ("first", "leave-out"))
    assert first.table["label"].tolist() == [0, 1, 0] and first.name == "x-firstlabel"
    assert dropped.table["image"].tolist() == ["1", "2"] and dropped.name == "x-without1"
    assert any("3 images have several classes" in note for note in dropped.notes)


# Given splits.


def with_split(root: Path, column: str, words: str) -> Path:
    cells = [*words.split(), "", ""][: max(3, len(words.split()))]
    cells += ["0" if column in ("is_test", "is_train", "fold") else "train"] * 3
    rows = [f"{i},{'ab'[i % 2]},{cell}" for i, cell in enumerate(cells)]
    images = " ".join(f"{i}.png" for i in range(len(cells)))
    return lay_out(root, {"t.csv": "\n".join([f"image,dx,{column}", *rows])}, images=images)


@pytest.mark.parametrize(
    ("column", "words", "shown"),
    [
        ("split", "train test_public test val test test", r"'test_public' \(1\)"),
        ("split", "train test", r"'blank' \(1\)"),
        ("Usage", "Training PublicTest Test", r"'PublicTest' \(1\)"),
        ("partition", "train train ?", r"'\?' \(1\)"),
        ("is_test", "0 1 2", r"'2' \(1\)"),
    ],
)
def test_a_given_split_with_strange_words_is_refused(tmp_path, column, words, shown):
    root = with_split(tmp_path / "x", column, words)
    refuses(f"{shown}.*=leave-out, or .* split_column=none$", open_dataset, root)
    passed = open_dataset(root, split_column="none")
    assert set(passed.table["split"]) == {""} and "is passed over" in " ".join(passed.notes)
    left = open_dataset(root, unclear_split="leave-out")
    assert left.name == "x-without1" and len(left) == len(passed) - 1


@pytest.mark.parametrize(
    ("column", "words", "parts"),
    [
        ("set", "Training-Set TEST validation", "train test val"),
        ("phase", "train test val", "train test val"),
        ("subset", "trainset testset dev", "train test val"),
        ("is_test", "1 0 True", "test train test"),
        ("is_train", "1 0 yes", "train test train"),
    ],
)
def test_given_splits_of_many_spellings_are_kept(tmp_path, column, words, parts):
    dataset = open_dataset(with_split(tmp_path, column, words))
    assert dataset.table["split"].tolist()[:3] == parts.split()
    assert f"split in '{column}'" in dataset.notes[0]


def test_a_column_of_folds_asks_which_is_tested(tmp_path):
    root = with_split(tmp_path / "x", "fold", "0 1 1 2")
    refuses(r"fold: the folds 0, 1, 2 are given; .* test_fold=0, or", open_dataset, root)
    dataset = open_dataset(root, test_fold="1")
    assert dataset.table["split"].tolist()[:4] == ["train", "test", "test", "train"]
    assert dataset.name == "x-testfold1"
    refuses(
        r"t.csv: test_fold: expected one of .* folds in 0, 1, 2, got '7'",
        open_dataset,
        root,
        test_fold="7",
    )
    with pytest.raises(InputError, match=r"test_fold: there is no column of folds"):
        open_dataset(with_split(tmp_path / "y", "age", "1 2 3"), test_fold="1")


# Names of images.

E = "\u00e9"


@pytest.mark.parametrize(
    ("written", "file"),
    [
        (f"{E}.png", unicodedata.normalize("NFD", f"{E}.png")),
        ("img/A.PNG", "img/a.png"),
        ("/home/me/x/a.png", "img/a.png"),
        ("C:\\x\\a.png", "img/a.png"),
        ("a", "img/a.png"),
        ("a.tif", "img/a.png"),
        (f"{E}A", unicodedata.normalize("NFD", f"{E}a.png")),
        ("a_downsampled", "img/a.png"),
    ],
)
def test_names_are_matched_and_said(tmp_path, written, file):
    lay_out(tmp_path, {"t.csv": f"image,dx\nb.png,y\n{written},x\n"}, images="b.png")
    lay_out(tmp_path, {file: b""})
    dataset = open_dataset(tmp_path)
    assert dataset.table["path"].iloc[1] == str(tmp_path / file)
    assert any(n.startswith("1 of 2 images found by their name, such") for n in dataset.notes)


def test_of_several_files_the_one_whose_name_agrees_most_is_taken(tmp_path):
    files = {"t.csv": "image,dx\na.png,x\nimg/b.png,y\n"}
    images = "img/a.jpg img/a.png img/b.png deep/img/b.png"
    paths = open_dataset(lay_out(tmp_path, files, images=images)).table["path"].tolist()
    assert paths == [str(tmp_path / "img/a.png"), str(tmp_path / "img/b.png")]


def test_the_folders_of_a_name_decide_between_files_of_one_name(tmp_path):
    files = {"t.csv": "image,dx\n/old/a/1.png,x\n/old/b/1.png,y\n"}
    lay_out(tmp_path, files, images="a/1.png b/1.png")
    paths = open_dataset(tmp_path).table["path"]
    assert [Path(path).parent.name for path in paths] == ["a", "b"]
    lay_out(tmp_path, {"t.csv": "image,dx\n1,x\n2,y\n", "b/1.png": b"x"}, images="a/2.png")
    refuses(r"1: 2 images below .* match, a/1.png and b/1.png; write", open_dataset, tmp_path)
    assert len(open_dataset(tmp_path / "t.csv", image_dir="a")) == 2
    refuses(r"^image_dir: no such folder: c$", open_dataset, tmp_path, image_dir="c")


def test_a_patient_for_each_image_is_known(tmp_path):
    text = "image,dx,patient_id\n1,a,1\n2,b,2\n"
    root = lay_out(tmp_path, {"t.csv": text}, images="1.png 2.png")
    assert open_dataset(root).groups_known
    assert not open_dataset(root, group_column="none").groups_known
    lay_out(tmp_path, {"t.csv": text.replace("b,2", "b,?")})
    assert not open_dataset(root).groups_known


def test_what_was_guessed_is_in_the_check(tmp_path):
    pixels = {f"{i}.png": np.random.default_rng(i).integers(0, 256, (20, 20, 3)) for i in range(12)}
    for name, array in pixels.items():
        Image.fromarray(array.astype(np.uint8)).save(tmp_path / name)
    rows = [f"{i},{'ab'[i % 2]},P{i}" for i in range(12)]
    lay_out(tmp_path, {"t.csv": "\n".join(["image,dx,patient_id", *rows])})
    config = DataConfig(dataset=str(tmp_path), image_size=16)
    found = examine(*open_for_checks(config), config=config)
    told = {finding.verdict for finding in found.findings if finding.what == "opening"}
    used = "image in 'image', class in 'dx', group in 'patient_id', no given split"
    assert f"t.csv: {used}" in told and len(told) == 2
    groups = next(finding for finding in found.findings if finding.what == "groups")
    assert groups.level == "ok" and found.facts["groups"] == 12


def test_groups_that_look_alike_are_never_two(tmp_path, capsys):
    def groups(*cells):
        rows = "".join(f"{i},{'ab'[i % 2]},{cell}\n" for i, cell in enumerate(cells))
        lay_out(tmp_path, {"t.csv": "image,dx,patient_id\n" + rows}, images="0.png 1.png 2.png")
        return open_dataset(tmp_path / "t.csv").table["group"].tolist()

    refuses(r"groups '7' and '7.0' look like one", groups, "7", "7.0", "8.0")
    assert groups("07", "08", "10") == ["07", "08", "10"]
    for first, second in (("007", "7"), ("P1", "p1"), ("P  1", "P 1")):
        refuses(r"patient_id: groups '.*' look like .*group_column", groups, first, second, "x")
    groups("", "nan", "")
    assert "'patient_id' is empty" in capsys.readouterr().err


def test_a_column_called_train_is_a_split(tmp_path):
    rows = "image,dx,train\n1,a,True\n2,b,True\n3,b,False\n4,a,False\n"
    lay_out(tmp_path, {"t.csv": rows}, images="1.png 2.png 3.png 4.png")
    dataset = open_dataset(tmp_path / "t.csv")
    assert dataset.table["split"].tolist() == "train train test test".split()
    refuses(r"^test_per_class: expected 0, for t gives", make_split, dataset, test_per_class=1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("test_list.txt", "3.png\n"),  # NIH ChestX-ray14
        ("train_indexes.csv", "indexes\n0\n1\n"),  # Derm7pt
        ("test.csv", "image,dx\nx/3.png,a\n"),
    ],
)
def test_lists_of_parts_beside_a_table_are_refused(tmp_path, name, text):
    files = {"all.csv": "image,dx\n1.png,a\n2.png,b\n3.png,a\n", name: text}
    root = lay_out(tmp_path, files, images="x/1.png x/2.png x/3.png")
    refuses(
        rf"{name} beside it seems .* column 'split', or .*=none$", open_dataset, root / "all.csv"
    )
    drawn = open_dataset(root / "all.csv", split_column="none")
    assert set(drawn.table["split"]) == {""} and f"not used: {name}" in drawn.notes


def test_a_table_without_a_line_of_names_loses_no_row(tmp_path):
    root = lay_out(
        tmp_path, {"a.csv": "1.jpg,nv\n2.jpg,mel\n3.jpg,nv\n"}, images="1.jpg 2.jpg 3.jpg"
    )
    for options in ({}, {"class_column": "nv"}):
        refuses("names of columns in the first line", open_dataset, root / "a.csv", **options)


def test_lists_that_are_not_read_are_named(tmp_path):
    lay_out(tmp_path, {"train.txt": "x\n", "test.txt": "a;b\n"}, images="nv/1.png mel/2.png")
    assert open_dataset(tmp_path).notes == ("not used: test.txt, train.txt",)
    lay_out(tmp_path, {"t.csv": "image,dx,split\n1,a,train\n2,b,test\n"})
    assert "not used: test.txt, train.txt" in open_dataset(tmp_path).notes


def test_columns_that_were_not_taken_or_only_sound_like_a_split_are_named(tmp_path):
    text = "image,dx,label,patient_id,lesion_id,site,hospital,split,fold\n"
    text += "1,a,0,P,L,s,h,train,1\n2,b,1,P,K,s,h,test,2\n"
    notes = open_dataset(lay_out(tmp_path, {"t.csv": text}, images="1.png 2.png")).notes
    assert notes == (
        "t.csv: image in 'image', class in 'dx' (not in 'label'), group in 'patient_id' (not in "
        "'lesion_id'), source in 'site' (not in 'hospital'), split in 'split'",
        "'fold' is passed over: the split is given in 'split'",
        "2 of 2 images found by their name, such as 1.png for 1",
    )
    text = "image,dx,phase\n1,a,arterial\n2,b,venous\n"
    dataset = open_dataset(lay_out(tmp_path, {"t.csv": text}, images="1.png 2.png"))
    assert set(dataset.table["split"]) == {""}


def test_folders_that_all_hold_folders_may_be_parts_and_are_refused(tmp_path):
    images = "entrenamiento/nv/1.png entrenamiento/mel/2.png prueba/nv/3.png prueba/mel/4.png"
    lay_out(tmp_path, {}, images=images)
    rule = r"found folders in each of entrenamiento, prueba, such as entrenamiento/mel; if those"
    refuses(rule, open_dataset, tmp_path)
    named = open_dataset(tmp_path, labels_from="folders")
    assert named.class_names == ("entrenamiento", "prueba")


def test_a_list_of_other_images_is_named_as_not_used(tmp_path):
    files = {"train.csv": "image,dx\n1.png,a\n2.png,b\n", "test.csv": "image\n3.png\n"}
    root = lay_out(tmp_path, files, images="1.png 2.png 3.png")
    dataset = open_dataset(root / "train.csv")
    assert set(dataset.table["split"]) == {""} and "not used: test.csv" in dataset.notes


@pytest.mark.parametrize("held_out", ["test", "-1"])
def test_what_is_held_out_of_all_folds_is_not_trained_on(tmp_path, held_out):
    root = with_split(tmp_path / "x", "fold", f"0 1 2 {held_out}")
    with pytest.raises(InputError, match=rf"rows are of no numbered fold: '{held_out}' \(\d\); "):
        open_dataset(root, test_fold="0")
    dataset = open_dataset(root, test_fold="0", unclear_split="leave-out")
    assert dataset.table["split"].tolist()[:3] == ["test", "train", "train"]
    assert any("left out: fold" in note for note in dataset.notes)


def test_gaps_in_a_column_of_groups_that_another_column_fills_are_refused(tmp_path):
    files = {"t.csv": "image,dx,patient_id,lesion_id\n1,a,,L1\n2,b,P1,L1\n3,a,P1,\n"}
    root = lay_out(tmp_path, files, images="1.png 2.png 3.png")
    refuses(r"patient_id: 1 images have none, but a lesion_id; .*=lesion_id$", open_dataset, root)
    dataset = open_dataset(root, group_column="lesion_id")
    assert dataset.table["group"].tolist() == ["L1", "L1", "3"] and not dataset.groups_known


def test_twins_are_taken_once(tmp_path):
    files = {"t.csv": "image,dx\n1,a\n2,b\n", "a/1.png": b"x", "b/1.png": b"x", "a/2.png": b"y"}
    dataset = open_dataset(lay_out(tmp_path, files))
    assert dataset.table["path"].iloc[0] == str(tmp_path / "a" / "1.png")
    assert any(note.startswith("1 images are there twice, byte by byte") for note in dataset.notes)
