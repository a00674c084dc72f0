import re

import numpy as np
import pandas as pd
import pytest

from fopro_lab.errors import InputError
from fopro_lab.evaluation.metrics import mean_recall
from fopro_lab.evaluation.scores import align
from tests.evaluation.toy_runs import groups, predictions


def test_align_sorts_every_run_by_image():
    first, second = predictions(seed=1), predictions(seed=2)
    images = align([first, second.sample(frac=1, random_state=0)], groups())
    np.testing.assert_array_equal(images.logits[1], second.filter(like="logit_").to_numpy())
    np.testing.assert_array_equal(images.labels, first["label"])


def test_align_takes_the_asked_split_only():
    both = pd.concat([predictions(), predictions(split="val", seed=1)])
    images = align([both], groups(), split="val")
    expected = predictions(seed=1).filter(like="logit_").to_numpy()
    np.testing.assert_array_equal(images.logits[0], expected)


@pytest.mark.parametrize(("a_group", "resampled"), [(1, "image"), (2, "group")])
def test_align_says_what_is_resampled(a_group, resampled):
    assert align([predictions(a_group=a_group)], groups()).resampled == resampled


def test_images_of_unknown_groups_are_units_of_their_own():
    images = align([predictions().assign(group="")], groups())
    assert images.resampled == "image"
    assert images.class_sizes(units=True) == images.class_sizes()


def test_class_sizes_count_images_or_lesions():
    images = align([predictions((4, 4, 2, 1), a_group=2)], groups((4, 4, 2, 1)))
    assert images.class_sizes() == {"nv": 4, "mel": 4, "bkl": 2, "df": 1}
    assert images.class_sizes(units=True) == {"nv": 2, "mel": 2, "bkl": 1, "df": 1}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (predictions((40, 20, 10, 5)), "got 76 and 75 that differ in 'image'; use runs of one"),
        (predictions().assign(label=0), "got 76 and 76 that differ in 'label'"),
        (predictions(a_group=2), "got 76 and 76 that differ in 'group'"),
        (
            predictions().rename(columns={"logit_df": "logit_vasc"}),
            "expected the classes nv, mel, bkl, df in every run, got nv, mel, bkl, vasc",
        ),
        (predictions(split="val"), "split: expected images of 'test', got val"),
    ],
)
def test_align_refuses_runs_on_other_images(second, message):
    with pytest.raises(InputError, match=re.escape(message)):
        align([predictions(), second], groups())


def test_align_refuses_groups_that_do_not_fit():
    with pytest.raises(InputError, match="groups: expected one for each of nv, mel, bkl, df, got"):
        align([predictions()], {"nv": "head"})
    with pytest.raises(InputError, match="groups: df: expected head, medium or tail, got 'rare'"):
        align([predictions()], groups() | {"df": "rare"})


def test_mean_recall_without_any_is_unknown():
    assert np.isnan(mean_recall(np.full((3, 2), np.nan))).all()
