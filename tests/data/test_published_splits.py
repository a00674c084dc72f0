import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fopro_lab.data import Dataset, open_dataset
from fopro_lab.data.published_splits import (
    ALIASES,
    CLASSES,
    RANKED,
    RATIOS,
    canonical_class,
    describe_changes,
    find_split_files,
    isic2019_lt_names,
    make_hyperkvasir,
    make_isic2019_lt,
    make_monica,
    mixup_folds,
)
from fopro_lab.data.split_rules import PARTS
from fopro_lab.errors import InputError
from tests.conftest import refuses
from tests.data.publisher import medmnist_npz
from tests.data.toys import altered, isic2019_lt_counts

SIZES = {"train": 4, "val": 2, "test": 3}  # images of each class in the toy files
MADE_UP = f"{', '.join(isic2019_lt_names(0.005, 2))}: not the published files"
OWN = {"MEL": "mel", "NV": "nv", "BCC": "bcc", "AK": "akiec", "SCC": "akiec"}


def dataset_of(rows: list[tuple[str, str]]) -> Dataset:
    """Make a data set without pixels of (image, class)."""
    names = tuple(sorted({own for _, own in rows}))
    table = pd.DataFrame(rows, columns=["image", "class"])
    table["label"] = table["class"].map(names.index)
    table = table.assign(path="", source="", split="", group=table["image"])
    return Dataset("toy", table, names, lambda row, size: np.zeros((size, size, 3), np.uint8), "f")


def ids(dataset: Dataset, rows: np.ndarray) -> set[str]:
    return set(dataset.table["image"].iloc[rows])


# Finding the files, and comparing them with the published ones.


def test_find_split_files_takes_a_folder_the_one_file_or_what_was_fetched(tmp_path, monkeypatch):
    for name in ("a.csv", "b.csv", "hyperkvasir/official_splits/c.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files = [tmp_path / "b.csv", tmp_path / "a.csv"]
    assert find_split_files(["b.csv", "a.csv"], files=tmp_path, fetched="fopro-splits") == files
    one = tmp_path / "a.csv"
    assert find_split_files(["2_fold_split.csv"], files=one, fetched="hyperkvasir") == [one]
    with pytest.raises(InputError, match=r"^split_files: .*: expected the published d.csv, found"):
        find_split_files(["a.csv", "d.csv"], files=tmp_path, fetched="fopro-splits")
    monkeypatch.setenv("FOPRO_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"^split_files: .* not fetched; say `fopro data fetch"):
        find_split_files(["a.csv"], files=None, fetched="fopro-splits")
    monkeypatch.setattr("fopro_lab.data.published_splits.fetched_place", tmp_path.joinpath)
    found = find_split_files(["c.csv"], files=None, fetched="hyperkvasir")
    assert found == [tmp_path / "hyperkvasir" / "official_splits" / "c.csv"]


@pytest.mark.real
def test_describe_changes_sees_half_a_file_and_other_line_ends(shared, tmp_path):
    names = isic2019_lt_names(0.005, 1)
    *_, test = paths = [tmp_path / name for name in names]
    for path in paths:
        shutil.copyfile(shared / "data" / "isic2019_lt_splits" / path.name, path)
    assert describe_changes(paths, names, fetched="fopro-splits") == ("", [])
    whole, seen = test.read_bytes(), set()
    # Half of it, and the same images that are not the same bytes.
    for content in (whole[: len(whole) // 2], whole.replace(b"\n", b"\r\n")):
        test.write_bytes(content)
        ending, notes = describe_changes(paths, names, fetched="fopro-splits")
        assert notes == ["test_skin1_0.005.csv: not the published file"]
        assert ending.startswith("/altered-") and ending not in seen
        seen.add(ending)


# ISIC-2019-LT.


def toy_rows(classes=CLASSES) -> list[tuple[str, str, str]]:
    """List (image, part, published class) of the toy files."""
    return [(f"{c}_{p}_{i}", p, c) for p in PARTS for c in classes for i in range(SIZES[p])]


def split_toy(folder: Path, dataset: Dataset, **options):
    """Write the toy files, which are not the published ones, and split by them."""
    for part, name in zip(PARTS, isic2019_lt_names(0.005, 2), strict=True):
        own = [(image, c) for image, p, c in toy_rows() if p == part]
        lines = [f"{image},{CLASSES.index(c)},{RANKED.index(c)}" for image, c in own]
        (folder / name).write_text("\n".join(["image,finding_name,finding", *lines]) + "\n")
    return make_isic2019_lt(dataset, ratio=0.005, fold=2, files=folder, **options)


def toy_protocol(folder: Path) -> str:
    names = isic2019_lt_names(0.005, 2)
    return "isic2019-lt/fopro/0.005/fold2" + altered(*(folder / name for name in names))


def test_make_isic2019_lt_takes_each_part_from_its_file_without_images_if_allowed(tmp_path):
    # Folders and endings do not matter, nor do twins that no part names.
    named = [(f"x/{image}.jpg", c) for image, _, c in reversed(toy_rows())]
    dataset = dataset_of([*named, ("more", "NV"), ("y/more", "DF")])
    split = split_toy(tmp_path, dataset)
    for part in PARTS:  # a swapped validation and test would be caught here
        wanted = {f"x/{image}.jpg" for image, p, _ in toy_rows() if p == part}
        assert ids(dataset, getattr(split, part)) == wanted
    assert split.protocol == toy_protocol(tmp_path)
    assert split.notes == (MADE_UP,)
    gone = ("NV_test_0", "DF_train_1")
    dataset = dataset_of([(image, c) for image, _, c in toy_rows() if image not in gone])
    refuses(r"2 of its 72 images are not in toy, first DF_train_1", split_toy, tmp_path, dataset)
    split = split_toy(tmp_path, dataset, leave_out=True)
    assert split.protocol == toy_protocol(tmp_path) + "/part-70of72-toy"
    assert split.notes[1:] == ("70 of the 72 images that the published split names are here",)
    test = {image for image, p, _ in toy_rows() if p == "test"}
    assert ids(dataset, split.test) == test - {"NV_test_0"}


def test_make_isic2019_lt_joins_classes_that_are_one_here_and_notes_absent_ones(tmp_path):
    dataset = dataset_of([(image, OWN[c]) for image, _, c in toy_rows(tuple(OWN))])
    split = split_toy(tmp_path, dataset, leave_out=True)
    assert split.protocol == toy_protocol(tmp_path) + "/part-45of72-toy/4classes"
    assert split.class_counts(dataset).tolist() == [8, 4, 4, 4]
    assert split.notes[2:] == (
        "AK and SCC are one class here, 'akiec'",
        "no image of BKL, DF, VASC is here",
    )
    rows = [(i, c) for i, p, c in toy_rows() if (p, c) not in [("test", "DF"), ("val", "VASC")]]
    split = split_toy(tmp_path, dataset_of(rows), leave_out=True)
    assert split.notes[2:] == ("val has no image of VASC", "test has no image of DF")


def test_make_isic2019_lt_refuses_wrong_options_and_files(tmp_path):
    dataset = dataset_of([(image, c) for image, _, c in toy_rows()])
    refuses(r"^tail_ratio: expected one of the published", make_isic2019_lt, dataset, ratio=0.05)
    refuses(r"^fold: expected 1 to 5, got 6$", make_isic2019_lt, dataset, ratio=0.01, fold=6)
    split_toy(tmp_path, dataset)
    twins = dataset_of([(image, c) for image, _, c in toy_rows()] + [("y/NV_val_1.png", "NV")])
    refuses(r"^toy: expected each image once, got NV_val_1 twice", split_toy, tmp_path, twins)
    other = [(i, "BCC" if i == "NV_val_1" else c) for i, _, c in toy_rows()]
    for rows, message in (
        ([("a", "NV"), ("b", "DF")], r"72 of its 72 images are not in toy, .*; is it the split"),
        (other, r"NV_val_1: 'BCC' where the split says 'NV'; mend the labels"),
        ([(i, c) for i, p, c in toy_rows() if (p, c) != ("train", "SCC")],
         r"^toy: class 'SCC' has no image in train; add images, leave the"),
    ):  # fmt: skip
        refuses(message, split_toy, tmp_path, dataset_of(rows), leave_out=True)
    path = tmp_path / "test_skin2_0.005.csv"
    path.write_text("image,finding_name,finding\nb,,1\n")
    with pytest.raises(InputError, match=r"5.csv: b: expected finding_name .* got '' and '1'$"):
        make_isic2019_lt(dataset, ratio=0.005, fold=2, files=tmp_path)


@pytest.mark.real
def test_all_45_published_files_are_read_as_they_are(shared):
    """The 15 splits, on a stand-in for ISIC 2019: all named images with their classes."""
    published = shared / "data" / "isic2019_lt_splits"
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
def test_the_published_files_share_lesions_of_ham10000_between_their_parts(shared):
    published = shared / "data" / "isic2019_lt_splits"
    dataset = open_dataset(shared / "data" / "ham10000")
    split = make_isic2019_lt(dataset, ratio=0.005, files=published, leave_out=True)
    assert split.protocol == "isic2019-lt/fopro/0.005/fold1/part-9370of23541-ham10000/7classes"
    assert (len(split.train), len(split.val), len(split.test)) == (8972, 134, 264)
    # Counted apart from this code, by joining the raw files with the lesion ids.
    assert len(split.group_leakage(dataset)) == 143
    group = dataset.table["group"].to_numpy()
    assert np.isin(group[split.test], group[split.train]).sum() == 93
    assert split.notes == (
        "9,370 of the 23,541 images that the published split names are here",
        "AK and SCC are one class here, 'akiec'",
        "143 groups have images in two parts or more, as published",
    )


# HyperKvasir.

HEADER = "file-name;class-name;split-index\n"


def toy_kvasir(folder: Path) -> tuple[Dataset, Path]:
    """Two classes of 20 images, in the file by its spelling, in the data set by the folders'."""
    rows = [(f"{c[0]}{i}", c, i % 5) for c in ("hemorroids", "polyp") for i in range(20)]
    path = folder / "5_fold_split.csv"
    path.write_text(HEADER + "".join(f"{i}.jpg;{c};{k}\n" for i, c, k in rows))
    own = {"hemorroids": "hemorrhoids", "polyp": "polyps"}
    return dataset_of([(f"lower/{own[c]}/{image}.jpg", own[c]) for image, c, _ in rows]), path


def test_make_hyperkvasir_tests_on_the_official_fold_or_refuses(tmp_path):
    dataset, path = toy_kvasir(tmp_path)
    split = make_hyperkvasir(dataset, fold=4, val_fraction=0.25, files=tmp_path)
    assert (np.arange(40) % 20 % 5 == 3).nonzero()[0].tolist() == split.test.tolist()
    labels = dataset.table["label"].to_numpy()
    assert np.bincount(labels[split.val]).tolist() == [4, 4]
    assert split.class_counts(dataset).tolist() == [12, 12]
    assert split.protocol == f"hyperkvasir/official5/val0.25/seed0/fold4{altered(path)}"
    other = make_hyperkvasir(dataset, fold=4, val_fraction=0.25, seed=1, files=path)
    assert other.test.tolist() == split.test.tolist() and set(other.val) != set(split.val)
    dataset, path = toy_kvasir(tmp_path)
    refuses(r"^folds: expected 2 or 5, the official ones", make_hyperkvasir, dataset, folds=4)
    refuses(r"^fold: expected 1 to 2, got 3$", make_hyperkvasir, dataset, folds=2, fold=3)
    dataset.table.loc[3, "label"] = 1
    refuses(r"1 of 40 images have another .* where", make_hyperkvasir, dataset, files=path)
    path.write_text(HEADER + "a;b;5\n")
    refuses(r"split-index: expected 0 to 4, got '5'", make_hyperkvasir, dataset, files=path)


@pytest.mark.real
def test_the_official_folds_fit_the_folders_of_the_archive(shared):
    """Both files, on a stand-in with the archive's folder names."""
    folder = shared / "data" / "hyperkvasir"
    for folds, sizes in ((2, None), (5, [2122] * 4 + [2174])):
        raw = pd.read_csv(folder / f"{folds}_fold_split.csv", sep=";")
        classes = [canonical_class(name) for name in raw["class-name"]]
        assert len(set(classes)) == 23 and not set(classes) & set(ALIASES)
        images = [f"{c}/{i}" for c, i in zip(classes, raw["file-name"], strict=True)]
        dataset = dataset_of(list(zip(images, classes, strict=True)))
        splits = [
            make_hyperkvasir(dataset, folds=folds, fold=fold, files=folder)
            for fold in range(1, folds + 1)
        ]
        tested = [len(split.test) for split in splits]
        assert sum(tested) == len(raw) == 10662 and (sizes is None or tested == sizes)
        for index, split in enumerate(splits):
            assert split.test.tolist() == np.flatnonzero(raw["split-index"] == index).tolist()
            assert len(split.train) + len(split.val) + len(split.test) == 10662
            assert split.class_counts(dataset).min() >= 2


# Balanced-MixUp's folds of HyperKvasir.

# SHA-256 over the names of each fold, from the archive's own list (image-labels.csv) and
# scikit-learn alone; it begins so.
MIXED = ("11cb061663c07742", "1a4492d7b71db890", "6bdc4a0f941dfbc7", "99badf4b7a9792ef",
         "718631243a57a858")  # fmt: skip


@pytest.mark.real
def test_the_folds_of_balanced_mixup_are_those_of_the_archives_list(shared):
    raw = pd.read_csv(shared / "data" / "hyperkvasir" / "5_fold_split.csv", sep=";")
    classes = raw["class-name"].map(canonical_class)
    order = np.random.default_rng(0).permutation(len(raw))  # of no influence
    fold_of = mixup_folds(raw["file-name"][order], classes[order])[np.argsort(order)]
    for fold, start in enumerate(MIXED, start=1):
        names = sorted(raw["file-name"][fold_of == fold].str.removesuffix(".jpg"))
        assert len(names) == 2132 + 2 * (fold == 5)
        assert hashlib.sha256("\n".join(names).encode()).hexdigest().startswith(start)
    counts = pd.crosstab(classes, fold_of)
    assert counts.loc["hemorrhoids"].tolist() == [1, 1, 1, 2, 1]
    assert counts.loc["bbps-2-3"].tolist() == [229, 230, 229, 230, 230]


def test_make_hyperkvasir_redraws_the_folds_of_balanced_mixup(tmp_path):
    dataset, path = toy_kvasir(tmp_path)
    how = {"val_fraction": 0.25, "files": path}
    splits = [make_hyperkvasir(dataset, fold=k, redraw=True, **how) for k in range(1, 6)]
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(40))
    official = make_hyperkvasir(dataset, fold=4, **how)
    assert splits[3].test.tolist() != official.test.tolist()
    # Another id: a comparison refuses the two together.
    ending = f"5/val0.25/seed0/fold4{altered(path)}"
    assert official.protocol == f"hyperkvasir/official{ending}"
    assert splits[3].protocol == f"hyperkvasir/balanced-mixup{ending}"
    refuses("^folds: expected 5, as", make_hyperkvasir, dataset, folds=2, redraw=True, **how)


# MONICA's lists of MedMNIST.


def write_lists(folder: Path, **parts: list[str]) -> Path:
    for part in PARTS:
        np.save(folder / f"dermamnist_{part}.npy", parts[part])
    return folder


def test_make_monica_trains_on_its_list_and_tests_on_the_official_part(tmp_path):
    (tmp_path / "dermamnist_64.npz").write_bytes(medmnist_npz(side=16))
    dataset = open_dataset(tmp_path / "dermamnist_64.npz")
    # Of eight training images, labelled 0 to 6 and 0 again, the list leaves the first out.
    listed = {"train": [f"train_{k}_{k % 7}.jpg" for k in (7, 3, 1, 2, 5, 4, 6)]}
    listed |= {part: [f"{part}_{k}_{k}.jpg" for k in range(7)] for part in ("val", "test")}
    folder = write_lists(tmp_path, **listed)
    split = make_monica(dataset, files=folder)
    assert ids(dataset, split.train) == {f"train-00000{k}" for k in range(1, 8)}
    for part in ("val", "test"):
        assert ids(dataset, getattr(split, part)) == {f"{part}-00000{k}" for k in range(7)}
    files = [folder / f"dermamnist_{part}.npy" for part in PARTS]
    assert split.protocol == f"dermamnist_64/monica{altered(*files)}"
    write_lists(tmp_path, **listed | {"val": [*listed["val"][1:], "val_0_3.jpg"]})
    refuses("1 of 21 images have another class in dermam", make_monica, dataset, files=folder)
    write_lists(tmp_path, **listed | {"test": ["test_0.jpg"]})
    refuses(
        "expected lines such as train_0_5.jpg, got 'test_0.jpg'", make_monica, dataset, files=folder
    )
    np.save(folder / "dermamnist_test.npy", np.array([{}]), allow_pickle=True)
    refuses("dermamnist_test.npy: .*it holds objects, which could run code", make_monica, dataset,
            files=folder)  # fmt: skip
    refuses("^split_rule: monica is of derma, .*, got 'toy'", make_monica, dataset_of([("a", "b")]))
