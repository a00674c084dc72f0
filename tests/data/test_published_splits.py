import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fopro_lab.data.published_splits import image_id, match_images
from fopro_lab.errors import InputError
from tests.data.toys import toy_dataset


def toy_named(*images: str) -> pd.DataFrame:
    return pd.DataFrame({"image": images, "class": "A"})


def renamed(*images: str):
    dataset = toy_dataset([(i % 2, 1) for i in range(len(images))])
    dataset.table["image"] = images
    return dataset


def test_match_images_looks_past_folders_and_extensions():
    dataset = renamed("x/c.jpg", "a.PNG", "y/z/b.c", "d.jpg")
    matched = match_images(dataset, toy_named("a.jpg", "b.c", "c"), where="f", leave_out=False)
    assert matched.rows.tolist() == [1, 2, 0]
    assert (matched.ending, matched.notes) == ("", [])
    assert matched.named["image"].tolist() == ["a.jpg", "b.c", "c"]


def test_match_images_without_some_says_so_in_the_protocol():
    dataset = renamed("a.jpg", "b.jpg")
    matched = match_images(dataset, toy_named("z", "b", "y"), where="f", leave_out=True)
    assert matched.rows.tolist() == [1]
    assert matched.named["image"].tolist() == ["b"]
    assert matched.ending == "/part-1of3-toy"
    assert matched.notes == ["1 of the 3 images that the published split names are here"]


@given(here=st.sets(st.integers(0, 30), min_size=1), named=st.permutations(range(20)))
def test_match_images_pairs_names_with_rows(here, named):
    dataset = renamed(*(f"p{i}.jpg" for i in sorted(here)))
    table = toy_named(*(f"p{i}" for i in named))
    if not here & set(named):
        with pytest.raises(InputError, match="none of its 20 images"):
            match_images(dataset, table, where="f", leave_out=True)
        return
    matched = match_images(dataset, table, where="f", leave_out=True)
    found = dataset.table["image"].iloc[matched.rows].str.removesuffix(".jpg")
    assert (
        found.tolist() == matched.named["image"].tolist() == [f"p{i}" for i in named if i in here]
    )


@pytest.mark.parametrize(
    ("images", "named", "message"),
    [
        (
            ["a.jpg", "b.jpg"],
            ["a", "b", "a.jpg"],
            r"^f: expected each image once, got a twice; remove the rep",
        ),
        (["a.jpg", "x/a.png"], ["a"], r"^toy: expected each image once, got a twice; rem"),
        (
            ["a.jpg", "b.jpg"],
            ["a", "c", "d"],
            r"^f: 2 of its 3 images are not in toy, first c; add them, or go on without them: "
            r"unusable=leave-out$",
        ),
        (["a.jpg", "b.jpg"], ["c"], r"^f: none of its 1 images is in toy, first c; is it the"),
    ],
)
def test_match_images_refuses(images, named, message):
    with pytest.raises(InputError, match=message):
        match_images(renamed(*images), toy_named(*named), where="f", leave_out=False)


def test_match_images_minds_only_named_twins():
    dataset = renamed("a.jpg", "x/t.jpg", "y/t.jpg")
    assert match_images(dataset, toy_named("a"), where="f", leave_out=False).rows.tolist() == [0]


def test_image_id_keeps_dots_that_are_no_extension():
    assert [image_id(name) for name in ("a.b", "a.b.JPEG", "d.1/e", ".jpg")] == [
        "a.b",
        "a.b",
        "e",
        "",
    ]


def test_matched_rows_are_integers():
    matched = match_images(renamed("a", "b"), toy_named("b"), where="f", leave_out=False)
    assert matched.rows.dtype == np.int64
