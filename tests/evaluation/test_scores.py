import re

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn import metrics as oracle

from fopro_lab.config import DataConfig
from fopro_lab.evaluation import class_groups, groups_from, score
from fopro_lab.evaluation.scores import align
from tests.conftest import refuses
from tests.evaluation.toy_runs import groups, hits, predictions, slow_bootstrap


def row(table, scope, name, metric):
    found = table.query("scope == @scope and name == @name and metric == @metric")
    assert len(found) == 1
    return found.iloc[0]


def overall(table, metric):
    return row(table, "overall", "all", metric)


@pytest.mark.parametrize(
    ("classes", "sizes"),
    [(2, (1, 0, 1)), (3, (1, 1, 1)), (7, (2, 2, 3)), (8, (2, 3, 3)), (23, (7, 8, 8))],
)
def test_class_groups_by_rank_split_any_number_of_classes(classes, sizes):
    found = class_groups({str(k): 1 + k for k in range(classes)})  # eight as published
    assert list(found) == [str(k) for k in reversed(range(classes))]
    thirds = zip(("head", "medium", "tail"), sizes, strict=True)
    assert list(found.values()) == [group for group, size in thirds for _ in range(size)]


def test_class_groups_by_count_put_the_thresholds_themselves_into_medium():
    counts = {"a": 701, "b": 700, "c": 70, "d": 69}
    assert list(class_groups(counts, rule="count").values()) == "head medium medium tail".split()


def test_wrong_input_is_refused():
    wrong = groups() | {"df": "rare"}
    refuses("groups: expected head, medium or tail for", score, predictions(), wrong, "toy")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "head medium tail tail"),
        ({"group_rule": "count"}, "medium medium tail tail"),
        # With the 15 % of the validation part these are 822, 700, 71 and 69.
        ({"dataset": "hyperkvasir"}, "head medium medium tail"),
        ({"dataset": "data/hyperkvasir", "split_rule": "folds"}, "head medium medium tail"),
        ({"split_rule": "hyperkvasir", "val_per_class": 11}, "head medium medium medium"),
        ({"dataset": "x", "split_rule": "balanced-mixup"}, "head medium medium tail"),
        ({"dataset": "hyperkvasir", "group_rule": "rank"}, "head medium tail tail"),
    ],
)
def test_groups_from_takes_what_is_published_for_a_data_set(options, expected):
    found = groups_from(DataConfig(**options), list("abcd"), np.array([699, 595, 60, 59]))
    assert list(found.values()) == expected.split()


def test_groups_of_monica_are_those_of_its_configs():
    # DermaMNIST: one class is head, two are tail; its thirds by rank would be 2, 2 and 3.
    config, counts = DataConfig(split_rule="monica"), [218, 359, 769, 47, 779, 4693, 99]
    found = groups_from(config, list("abcdefg"), np.array(counts))
    named = {
        group: "".join(sorted(n for n in found if found[n] == group)) for group in found.values()
    }
    assert named == {"head": "f", "medium": "abce", "tail": "dg"}


def test_score_equals_scikit_learn():
    table = predictions(seed=4)
    values = score(table, groups(), "toy", resamples=20).set_index(["name", "metric"])["value"]
    labels, logits = table["label"], table.filter(like="logit_").to_numpy()
    recalls = oracle.recall_score(labels, logits.argmax(axis=1), average=None)
    p = softmax(logits, axis=1)
    expected = {  # the others are held to it in test_metrics.py
        **{(name, "recall"): recalls[k] for k, name in enumerate(("nv", "mel", "bkl", "df"))},
        ("tail", "recall"): recalls[[2, 3]].mean(),
        ("all", "balanced_accuracy"): recalls.mean(),
        ("all", "worst_class_recall"): recalls.min(),
        ("all", "auroc"): oracle.roc_auc_score(labels, p, multi_class="ovr", average="macro"),
    }
    for key, value in expected.items():
        assert values[key] == pytest.approx(value, rel=1e-12)


def test_score_is_tidy_counts_and_forgets_the_order_of_rows():
    found = score(predictions(a_group=2), groups(), "toy/1", resamples=20)
    classes = found[found["scope"] == "class"]
    assert classes["name"].tolist() == ["nv", "mel", "bkl", "df"]
    assert classes["group"].tolist() == ["head", "medium", "tail", "tail"]
    assert classes["n"].tolist() == [40, 20, 10, 6]
    np.testing.assert_allclose(classes["k"] / classes["n"], classes["value"])
    assert row(found, "group", "tail", "recall")["n"] == 16
    assert set(found["protocol"]) == {"toy/1"} and set(found["resampled"]) == {"group"}
    table = predictions()
    first = score(table, groups(), "toy", resamples=30)
    both = pd.concat([table[::-1], predictions(split="val", seed=3)])
    pd.testing.assert_frame_equal(first, score(both, groups(), "toy", resamples=30))
    assert not first.equals(score(table, groups(), "toy", resamples=30, seed=1))


def test_score_intervals_equal_a_slow_bootstrap_over_lesions():
    counts = (60, 45, 36, 36)
    table = predictions(counts, a_group=3, seed=2)
    logits = [column for column in table if column.startswith("logit_")]
    table[logits] = table.groupby("group")[logits].transform("first")  # images agree
    table.loc[::7, logits] *= -1  # not quite
    found = overall(score(table, groups(counts), "toy", resamples=4000), "balanced_accuracy")
    expected = np.quantile(slow_bootstrap(table, hits(table), resamples=1500), [0.025, 0.975])
    assert found["interval"] == "wilson"
    # With 59 lesions t is near normal.
    # Monte Carlo noise of a limit is about 0.007; drawing single images moves the limits by
    # 0.03, drawing over all classes by more.
    np.testing.assert_allclose((found["low"], found["high"]), expected, atol=0.015)
    by_image = score(table.assign(group=""), groups(counts), "toy", resamples=4000)
    by_image = overall(by_image, "balanced_accuracy")
    assert np.abs(by_image[["low", "high"]].to_numpy(float) - expected).max() > 0.02


def test_a_class_all_wrong_gets_wilsons_interval_with_lesions_as_trials():
    table = predictions((40, 20, 10, 12), a_group=2)
    table.loc[table["label"] == 3, "logit_df"] = -99.0
    found = score(table, groups(), "toy", resamples=200)
    df = row(found, "class", "df", "recall")
    assert (df["value"], df["k"], df["n"], df["interval"]) == (0.0, 0.0, 12, "wilson")
    assert df["low"] == 0.0 and df["high"] == pytest.approx(0.3903, abs=1e-4)  # 0 of 6 lesions
    tail = row(found, "group", "tail", "recall")
    assert tail["interval"] == "mover" and tail["high"] > tail["value"] + 0.15
    assert overall(found, "balanced_accuracy")["interval"] == "mover"
    worst = overall(found, "worst_class_recall")
    # Of the smallest class, which has five lesions.
    assert worst["interval"] == "wilson" and worst["high"] == pytest.approx(0.4345, abs=1e-4)


def test_few_lesions_and_a_perfect_run_have_the_interval_that_can_be_given():
    found = score(predictions((40, 20, 10, 6), a_group=2), groups(), "toy", resamples=50)
    df = row(found, "class", "df", "recall")
    assert df["interval"] == "none: 3 groups" and np.isnan([df["low"], df["high"]]).all()
    assert df["k"] == pytest.approx(df["value"] * 6)
    tail = row(found, "group", "tail", "recall")
    assert tail["interval"] == "mover" and tail["high"] - tail["low"] > 0.3
    found = score(predictions(skill=99), groups(), "toy", resamples=50)
    kinds = found.set_index(["scope", "metric"])["interval"]
    assert set(kinds["class"]) == {"wilson"} and set(kinds["group"]) == {"mover"}
    assert kinds["overall", "auroc"] == "none" and np.isnan(overall(found, "auroc")["low"])
    assert 0.95 < overall(found, "accuracy")["low"] < overall(found, "accuracy")["high"] == 1


def test_confidences_alone_give_the_calibration_error_no_interval():
    table = predictions((9, 9, 9, 9), seed=0)
    logits = [name for name in table if name.startswith("logit_")]
    noise = np.random.default_rng(0).normal(0, 0.01, (len(table), 4))
    table[logits] = noise + np.array([1, 0, 0, 0])
    found = score(table, groups(), "toy")  # one class is always the answer, sure of it alike
    assert found["interval"][found["metric"] == "ece"].tolist() == ["none"]
    assert overall(found, "accuracy")["high"] - overall(found, "accuracy")["low"] > 0.2


def test_a_class_without_test_images_is_unknown_and_left_out_of_means():
    table = predictions((40, 20, 10, 6))
    table = table[table["label"] != 3]
    found = score(table, groups(), "toy", resamples=50)
    df = row(found, "class", "df", "recall")
    assert np.isnan([df["value"], df["low"], df["high"], df["k"]]).all()
    assert (df["n"], df["interval"]) == (0, "none")
    recalls = found[found["scope"] == "class"]["value"]
    assert overall(found, "balanced_accuracy")["value"] == pytest.approx(recalls.mean())
    tail = row(found, "group", "tail", "recall")
    assert tail["value"] == row(found, "class", "bkl", "recall")["value"]
    assert not found[found["scope"] == "overall"].drop(columns="k").isna().any(axis=None)
    only_head = score(table[table["label"] == 0], groups(), "toy", resamples=50)
    assert np.isnan(row(only_head, "group", "tail", "recall")["value"])
    assert np.isnan(overall(only_head, "auroc")["value"])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (predictions((40, 20, 10, 5)), "got 76 and 75 that differ in image, label, group; use"),
        (predictions().assign(label=0), "got 76 and 76 that differ in label"),
        (predictions().rename(columns={"logit_df": "logit_x"}), "that differ in class; use"),
        (predictions(split="val"), "split: expected images of 'test', got val"),
    ],
)
def test_align_refuses_runs_on_other_images(second, message):
    refuses(re.escape(message), align, [predictions(), second], groups())
