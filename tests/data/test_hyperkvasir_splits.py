from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fopro_lab.config import DataConfig
from fopro_lab.data import Dataset
from fopro_lab.data.published_splits import (
    ALIASES,
    canonical_class,
    make_hyperkvasir,
    read_hyperkvasir_folds,
)
from fopro_lab.data.published_splits import HYPERKVASIR_SPLITS_CLASSES as CLASSES
from fopro_lab.errors import InputError
from fopro_lab.evaluation import groups_from
from tests.data.toys import altered

HEADER = "file-name;class-name;split-index\n"


def dataset_of(images: list[str], classes: list[str]) -> Dataset:
    names = tuple(sorted(set(classes)))
    table = pd.DataFrame({"image": images, "label": [names.index(c) for c in classes]})
    table = table.assign(path="", group=table["image"], source="", split="")
    blank = np.zeros((8, 8, 3), np.uint8)
    return Dataset("toy", table, names, lambda row, size: blank, "f")


def toy(folder: Path) -> tuple[Dataset, Path]:
    """Two classes of 20 images, in the file by its spelling, in the data set by the folders'."""
    rows = [(f"{c[0]}{i}", c, i % 5) for c in ("hemorroids", "polyp") for i in range(20)]
    path = folder / "5_fold_split.csv"
    path.write_text(HEADER + "".join(f"{i}.jpg;{c};{k}\n" for i, c, k in rows))
    own = {"hemorroids": "hemorrhoids", "polyp": "polyps"}
    images = [f"lower/{own[c]}/{image}.jpg" for image, c, _ in rows]
    return dataset_of(images, [own[c] for _, c, _ in rows]), path


def test_make_hyperkvasir_tests_on_the_official_fold(tmp_path):
    dataset, path = toy(tmp_path)
    split = make_hyperkvasir(dataset, fold=4, val_fraction=0.25, files=tmp_path)
    assert (np.arange(40) % 20 % 5 == 3).nonzero()[0].tolist() == split.test.tolist()
    labels = dataset.table["label"].to_numpy()
    assert np.bincount(labels[split.val]).tolist() == [4, 4]
    assert split.class_counts(dataset).tolist() == [12, 12]
    assert split.protocol == f"hyperkvasir/official5/val0.25/seed0/fold4{altered(path)}"
    assert (
        split.fingerprint
        == make_hyperkvasir(dataset, fold=4, val_fraction=0.25, files=path).fingerprint
    )
    other = make_hyperkvasir(dataset, fold=4, val_fraction=0.25, seed=1, files=tmp_path)
    assert other.test.tolist() == split.test.tolist() and set(other.val) != set(split.val)


def test_make_hyperkvasir_without_some_images_says_so(tmp_path):
    dataset, path = toy(tmp_path)
    fewer = dataset.subset(range(2, 40))
    with pytest.raises(InputError, match=r"2 of its 40 images are not in toy, first h0; add"):
        make_hyperkvasir(fewer, files=path)
    split = make_hyperkvasir(fewer, val_per_class=2, files=path, leave_out=True)
    assert (
        split.protocol == f"hyperkvasir/official5/val2/seed0/fold1{altered(path)}/part-38of40-toy"
    )
    assert split.notes == (
        "5_fold_split.csv: not the published file",
        "38 of the 40 images that the published split names are here",
    )
    assert len(split.test) == 7


def test_make_hyperkvasir_leaves_images_out_that_the_file_does_not_name(tmp_path):
    dataset, path = toy(tmp_path)
    images = [*dataset.table["image"], "more.jpg", "most.jpg"]
    larger = dataset_of(images, [*(["hemorrhoids"] * 20), *(["polyps"] * 22)])
    split = make_hyperkvasir(larger, files=path)
    assert not {40, 41} & {*split.train, *split.val, *split.test}
    assert split.fingerprint == make_hyperkvasir(dataset, files=path).fingerprint
    assert split.protocol == f"hyperkvasir/official5/val0.15/seed0/fold1{altered(path)}"


def test_make_hyperkvasir_refuses_another_class(tmp_path):
    dataset, path = toy(tmp_path)
    dataset.table.loc[3, "label"] = 1
    with pytest.raises(
        InputError,
        match=r"5_fold_split.csv: 1 of 40 images have another class in toy, first h3.jpg: "
        r"'polyps' where the split says 'hemorroids'; mend the labels$",
    ):
        make_hyperkvasir(dataset, files=path)


def test_make_hyperkvasir_refuses_other_numbers_of_folds():
    dataset = dataset_of(["a", "b"], ["x", "y"])
    with pytest.raises(InputError, match=r"^folds: expected 2 or 5, the official ones, got 4; spl"):
        make_hyperkvasir(dataset, folds=4)
    with pytest.raises(InputError, match=r"^fold: expected 1 to 2, got 3$"):
        make_hyperkvasir(dataset, folds=2, fold=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file-name;class-name\na;b\n", r"expected a column 'split-index', it has file-name, clas"),
        (
            HEADER + "a;b;2\n",
            r"split-index: expected 0 to 1, got '2'; is it the file of 2 folds\?$",
        ),
        (HEADER + "a;b;x\n", r"split-index: expected 0 to 1, got 'x'"),
    ],
)
def test_read_hyperkvasir_folds_refuses(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_hyperkvasir_folds(tmp_path / "a.csv", folds=2)


def test_canonical_class_leaves_no_alias_astray():
    assert set(ALIASES.values()) <= set(CLASSES) and not set(ALIASES) & set(CLASSES)
    assert [canonical_class(name) for name in CLASSES] == list(CLASSES)
    assert canonical_class("Ulcerative_Colitis 0-1") == "ulcerative-colitis-grade-0-1"


@pytest.mark.real
def test_the_official_folds_fit_the_folders_of_the_archive(shared):
    """Both files, on a stand-in with the archive's folder names."""
    folder = shared / "data" / "hyperkvasir"
    for folds, sizes in ((2, None), (5, [2122] * 4 + [2174])):
        raw = pd.read_csv(folder / f"{folds}_fold_split.csv", sep=";")
        classes = [canonical_class(name) for name in raw["class-name"]]
        assert set(classes) == set(CLASSES) and len(CLASSES) == 23
        images = [f"{c}/{i}" for c, i in zip(classes, raw["file-name"], strict=True)]
        dataset = dataset_of(images, classes)
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
    counts = splits[0].class_counts(dataset)
    groups = groups_from(DataConfig(dataset="hyperkvasir"), dataset.class_names, counts)
    # In four folds of five: 745 images of z-line, 611 of retroflex-stomach; 105 of
    # impacted-stool, 42 of barretts-short-segment.
    heads = "bbps-2-3 cecum dyed-lifted-polyps dyed-resection-margins polyps pylorus z-line"
    tails = "barretts barretts-short-segment hemorrhoids ileum ulcerative-colitis-grade-0-1 "
    tails += "ulcerative-colitis-grade-1-2 ulcerative-colitis-grade-2-3"
    assert {name for name in groups if groups[name] == "head"} == set(heads.split())
    assert {name for name in groups if groups[name] == "tail"} == set(tails.split())
