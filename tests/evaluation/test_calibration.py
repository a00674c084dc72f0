"""Temperature and conformal sets: known answers, and the coverage that they promise."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from fopro_lab.evaluation import calibrate, load_runs
from fopro_lab.evaluation.calibration import conformal_limits, fit_temperature
from fopro_lab.evaluation.prior_shift import prior_weights
from tests.conftest import refuses
from tests.evaluation.toy_runs import NAMES, predictions, write_run


def test_limit_has_the_finite_sample_rank_and_is_infinite_for_too_few_images():
    scores = np.concatenate([np.arange(9, 0, -1) / 10, np.arange(8), np.arange(19)])
    labels = np.repeat([0, 1, 2], [9, 8, 19])
    found = conformal_limits(scores, labels, classes=4, coverage=0.9)
    np.testing.assert_array_equal(found, [0.9, np.inf, 17, np.inf])  # the last has no images
    rng = np.random.default_rng(0)
    for n, coverage in ((50, 0.8), (37, 0.95), (200, 0.7)):
        own = rng.random(n)
        level = math.ceil((n + 1) * coverage) / n
        wanted = np.quantile(own, level, method="inverted_cdf")
        assert conformal_limits(own, np.zeros(n, int), classes=1, coverage=coverage) == wanted


def test_sets_hold_the_true_class_as_often_as_promised_in_each_class():
    rng, coverage, sizes = np.random.default_rng(0), 0.9, (20, 50)
    held = np.zeros(2)
    for _ in range(3000):
        labels = np.repeat([0, 1], sizes)
        limits = conformal_limits(rng.random(70), labels, classes=2, coverage=coverage)
        held += (rng.random((40, 2)) <= limits).mean(axis=0) / 3000
    # Exactly ceil((n + 1) coverage) / (n + 1); a rank of n coverage would give 18 / 21 = 0.857.
    exact = [math.ceil((n + 1) * coverage) / (n + 1) for n in sizes]
    np.testing.assert_allclose(held, exact, atol=0.006)
    assert (np.array(exact) >= coverage).all()


def test_temperature_is_found_from_labels_drawn_with_it():
    rng = np.random.default_rng(0)
    logits = 4 * rng.normal(size=(20_000, 3))
    chances = softmax(logits / 2.5, axis=1).cumsum(axis=1)
    labels = np.minimum((rng.random((20_000, 1)) > chances).sum(axis=1), 2)
    assert fit_temperature(logits, labels, np.ones(20_000)) == pytest.approx(2.5, rel=0.03)
    right = logits.argmax(axis=1)
    assert fit_temperature(logits, right, np.ones(20_000)) == 1  # no T is the best
    by_chance = np.random.default_rng(1).integers(logits.shape[1], size=20_000)
    assert fit_temperature(logits, by_chance, np.ones(20_000)) > 15  # the flatter the better


@pytest.fixture
def run(tmp_path):
    table = pd.concat([predictions((60, 30, 10, 6), split="val"), predictions()])
    write_run(tmp_path / "run", table, class_counts=[600, 300, 100, 60], method="bsm")
    return load_runs(tmp_path)[0]


def test_calibration_goes_by_validation_and_by_the_shares_that_the_logits_hold_for(run):
    found = calibrate(run, coverage=0.9)
    assert found.too_few == {"df": 6} and found.implicit == "uniform"
    val = run.predictions[run.predictions["split"] == "val"]
    logits, labels = val.filter(like="logit_").to_numpy(), val["label"].to_numpy()
    even = prior_weights(labels, np.ones((106, 1)), np.full(4, 0.25))[:, 0]
    assert found.temperature == fit_temperature(logits, labels, even)
    sets = found.class_sets(logits)
    assert sets[:, 3].all()  # of a class with too few images
    for k in range(3):
        n = (labels == k).sum()
        assert sets[labels == k, k].sum() == math.ceil((n + 1) * 0.9)
    train = found.probabilities(logits, found.prior("training"))
    odds = np.exp(logits / found.temperature) * [600, 300, 100, 60]
    np.testing.assert_allclose(train, odds / odds.sum(axis=1, keepdims=True))
    named = found.prior({"nv": 60, "mel": 30, "bkl": 10, "df": 6})
    np.testing.assert_allclose(named, found.prior("training"))
    np.testing.assert_array_equal(found.prior(""), found.prior("uniform"))


def test_a_lesion_counts_once_for_the_limits(tmp_path):
    table = predictions((20, 20, 20, 20), split="val", a_group=2)
    write_run(tmp_path, table, class_counts=[9, 9, 9, 9])
    (run,) = load_runs(tmp_path)
    assert calibrate(run).counts.tolist() == [10] * 4
    assert list(calibrate(run, coverage=0.95).too_few) == list(NAMES)


def test_wrong_shares_and_coverage_are_refused(run, tmp_path):
    found = calibrate(run)
    refuses("prior: expected uniform, training, or the share", found.prior, "natural")
    refuses("prior.bk: no such class; did you mean 'bkl'", found.prior, {"bk": 1.0})
    for shares in ({"nv": 1.0}, dict.fromkeys(NAMES, 0.0), dict.fromkeys(NAMES, -1.0)):
        refuses("prior: expected a finite share, 0 or more, for each class", found.prior, shares)
    refuses("coverage: expected a share between 0 and 1, got 1", calibrate, run, coverage=1.0)
    table = predictions(split="val")
    write_run(tmp_path / "ldam", table, class_counts=[4] * 4, config={"method": "", "seed": 0,
              "loss": "ldam"})  # fmt: skip
    unknown = calibrate(load_runs(tmp_path / "ldam")[0])
    refuses("prior: leave it out; the class shares that the logits", unknown.prior, "training")
    write_run(tmp_path / "blind", predictions(), class_counts=[4] * 4)
    refuses("predictions of validation", calibrate, load_runs(tmp_path / "blind")[0])
