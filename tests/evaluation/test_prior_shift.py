import numpy as np
import pytest

from fopro_lab.errors import InputError
from fopro_lab.evaluation.prior_shift import (
    PriorShift,
    class_prior,
    implicit_prior,
    measure_under_prior,
)
from tests.conftest import refuses
from tests.evaluation.toy_runs import predictions, run_of

COUNTS = (900, 120, 30, 10)


def drawn(n=200, classes=4, *, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += 1.0
    return logits, labels


def slow_measures(logits, labels, prior, old):
    """Every formula written out, class by class and bin by bin."""
    odds = np.exp(logits) * prior / old
    shares = odds / odds.sum(axis=1, keepdims=True)
    right, confidence = shares.argmax(axis=1) == labels, shares.max(axis=1)
    recalls = [right[labels == k].mean() for k in range(len(prior))]
    weight = prior[labels] / np.bincount(labels)[labels]
    gaps, bins = weight * (right - confidence), np.ceil(15 * confidence)
    ece = sum(abs(gaps[bins == number].sum()) for number in range(1, 16)) / weight.sum()
    accuracy = sum(p * r for p, r in zip(prior, recalls, strict=True))
    numbers = {"balanced_accuracy": sum(recalls) / len(prior), "accuracy": accuracy, "ece": ece}
    return numbers | {"recall": recalls}


@pytest.mark.parametrize("strength", [-1.0, 0.0, 0.5])
@pytest.mark.parametrize("old", ["training", "uniform"])
def test_measures_agree_with_the_formulas_written_out(strength, old):
    logits, labels = drawn()
    prior = class_prior(np.array(COUNTS), strength)
    implicit = class_prior(np.array(COUNTS), 1.0 if old == "training" else 0.0)
    weights = np.ones((len(labels), 1))
    found = measure_under_prior(logits, labels, weights, prior=prior, old=implicit)
    for name, value in slow_measures(logits, labels, prior, implicit).items():
        np.testing.assert_allclose(found[name][0], value, rtol=1e-10, atol=1e-12, err_msg=name)


def test_implicit_prior_follows_the_loss_and_the_sampler():
    assert implicit_prior({"method": "ce", "sampler": "instance"}) == "training"
    assert implicit_prior({"method": "ce", "sampler": "class-balanced"}) == "uniform"
    for method in ("bsm", "ekd", "fopro", "random"):
        assert implicit_prior({"method": method, "sampler": "square-root"}) == "uniform"
    assert implicit_prior({"method": "ce", "sampler": "square-root"}) == "unknown"
    assert implicit_prior({"method": "ce", "mixup_alpha": 0.2}) == "unknown"
    assert implicit_prior({"method": "ce", "distillation": "rkd", "mixup": 0.2}) == "training"
    for distillation in ("kd", "dkd", "own:fn"):
        assert implicit_prior({"method": "ce", "distillation": distillation}) == "unknown"


@pytest.fixture
def runs():
    return [
        run_of(predictions(seed=s, skill=1.0 + s, a_group=2), method=m, class_counts=COUNTS)
        for s, m in enumerate(("ce", "bsm"))
    ]


def values(table, run):
    return table[table["run"] == run].set_index(["name", "metric"])["value"]


def test_table_without_a_shift_is_that_of_the_score(runs):
    found = PriorShift(runs, resamples=50).table(0.0, adjust=False)
    for number, run in enumerate(runs):
        scored = run.table(resamples=10).set_index(["name", "metric"])["value"]
        own = values(found, number)
        for key in [*((name, "recall") for name in run.class_names), ("all", "balanced_accuracy")]:
            assert own[key] == pytest.approx(scored[key], abs=1e-12)
        assert own["all", "accuracy"] == pytest.approx(own["all", "balanced_accuracy"], abs=1e-12)


def test_table_moves_each_run_from_its_own_implicit_prior(runs):
    config = {"method": "ce", "seed": 0, "sampler": "progressive"}
    runs.append(run_of(predictions(a_group=2), config=config, class_counts=COUNTS))
    shift = PriorShift(runs, resamples=20)
    assert shift.implicit == ["training", "uniform", "unknown"]
    stored, moved = shift.table(1.0, adjust=False), shift.table(1.0)
    balanced = shift.table(0.0, adjust=False)
    assert values(stored, 0)["df", "recall"] == values(balanced, 0)["df", "recall"]
    same = [values(stored, number).equals(values(moved, number)) for number in range(3)]
    assert same == [True, False, True]  # cross-entropy's own prior is the training one


def test_table_intervals_hold_their_value_and_pair_the_runs(runs):
    table = PriorShift(runs, resamples=300).table(-0.5)
    few = table["interval"] == "none: 3 groups"  # as in a score
    assert set(table["name"][few]) == {"df"} and few.sum() == 2
    ends = table.loc[few, ["low", "high", "difference_low", "difference_high"]]
    assert ends.isna().all(axis=None)
    found = table[~few]
    assert (found["low"] <= found["value"]).all() and (found["value"] <= found["high"]).all()
    first, second = (table[table["run"] == r].set_index(["name", "metric"]) for r in (0, 1))
    assert (first["difference"] == 0).all()
    np.testing.assert_allclose(second["difference"], second["value"] - first["value"])
    row = second.loc["all", "balanced_accuracy"]
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert row["n"] == 76 and second.loc[("df", "recall"), "n"] == 6


def test_runs_of_other_or_no_training_images_are_refused(runs):
    refuses("class_counts: expected", PriorShift, [runs[0], run_of(class_counts=[1, 1, 1, 1])])
    refuses("class_counts: expected some", PriorShift, [run_of()])
    with pytest.raises(InputError, match="class_counts: expected numbers above 0"):
        PriorShift([run_of(class_counts=[9, 3, 1, 0])]).table(0.0)
    refuses("runs: expected at least one, got none", PriorShift, [])
