import numpy as np
import pytest
from scipy import stats

from fopro_lab.evaluation import bootstrap


def test_bootstrap_weights_keep_each_class_and_draw_lesions_whole():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    units = np.array(["a", "a", "b", "c", "d", "d", "e", "f"])
    weights = bootstrap.bootstrap_weights(labels, units, resamples=200, seed=0)
    assert (weights[0] == weights[1]).all() and (weights[4] == weights[5]).all()
    assert (weights[[0, 2, 3]].sum(axis=0) == 3).all()  # three lesions drawn from three
    assert (weights[[4, 6]].sum(axis=0) == 2).all()
    assert (weights[7] == 1).all()  # a single lesion is always itself
    other = bootstrap.bootstrap_weights(labels, units, resamples=200, seed=1)
    assert (weights != other).any()


@pytest.mark.parametrize("seeds", [1, 2, 6])
def test_seed_weights_give_the_mean_its_unbiased_variance(seeds):
    values = np.random.default_rng(0).normal(size=(seeds, 1))
    weights = bootstrap.seed_weights(seeds, resamples=40_000, seed=0)
    got = (weights * values).mean(axis=0)
    np.testing.assert_allclose(got.mean(), values.mean(), atol=0.02)
    if seeds == 1:
        assert (weights == 1).all()
        return
    # Without the stretch it would be (S - 1) / S of this: 17 % less for six seeds.
    np.testing.assert_allclose(got.var(), values.var(ddof=1) / seeds, rtol=0.05)


@pytest.mark.parametrize(
    ("of_folds", "of_seeds", "of_images", "least"),
    # Where three folds differ by more than their images, three numbers say too little.
    [(0.0, 0.0, 0.03, 0.92), (0.02, 0.02, 0.02, 0.90), (0.03, 0, 0.01, 0.8)],
)
def test_intervals_over_folds_hold_the_truth(of_folds, of_seeds, of_images, least):
    rng = np.random.default_rng(0)
    held, widths = [], []
    for number in range(300):
        values = rng.normal(0, of_folds, (3, 1)) + rng.normal(0, of_seeds, (3, 3))
        values += rng.normal(0, of_images * 3**0.5, (3, 1))
        drawn = [fold[:, None] + rng.normal(0, of_images * 3**0.5, (1, 300)) for fold in values]
        means = bootstrap.mean_over_trainings(drawn, seed=number)
        low, high = bootstrap.percentile_interval(means)
        held.append(low <= 0 <= high)
        widths.append(high - low)
    exact = 3.92 * np.sqrt(of_folds**2 / 3 + of_seeds**2 / 9 + of_images**2)
    # Folds drawn whole would hold it 99.7 times in 100, 1.7 times too wide.
    assert least <= np.mean(held) <= 0.985
    assert 0.85 < np.mean(widths) / exact < 1.35


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (3, 10), (81, 263)])
def test_wilson_interval_equals_scipy(k, n):
    expected = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    expected = expected.low, expected.high
    np.testing.assert_allclose(bootstrap.wilson_interval(k / n, n), expected, atol=1e-12)


def test_mean_interval_shrinks_with_the_root_and_follows_its_weights():
    ends = (np.full(4, 0.5), np.full(4, 0.3), np.full(4, 0.7))
    np.testing.assert_allclose(bootstrap.mean_interval(*ends), (0.4, 0.6), atol=1e-12)
    ends = (np.array([0.2, 0.9]), np.array([0.1, 0.0]), np.array([0.5, 1.0]))
    got = bootstrap.mean_interval(*ends, weights=np.array([3.0, 0.0]))
    np.testing.assert_allclose(got, (0.1, 0.5), atol=1e-12)


def test_difference_interval_combines_two_wilson_intervals():
    first, second = (stats.binomtest(k, 70).proportion_ci(0.95, method="wilson") for k in (56, 42))
    expected = (
        0.2 - np.sqrt((0.8 - first.low) ** 2 + (second.high - 0.6) ** 2),
        0.2 + np.sqrt((first.high - 0.8) ** 2 + (0.6 - second.low) ** 2),
    )
    np.testing.assert_allclose(bootstrap.difference_interval(0.8, 0.6, 70), expected, atol=1e-12)
    # Newcombe 1998, table II (a), has 56/70 against 48/80 at 0.0524 to 0.3339: close, not equal.
    np.testing.assert_allclose(expected, (0.0524, 0.3339), atol=0.01)


def test_sign_p_value_counts_the_smaller_side_twice():
    assert bootstrap.sign_p_value(np.r_[np.full(10, -1.0), np.full(89, 1.0)]) == 2 * 11 / 100
    assert bootstrap.sign_p_value(np.zeros(99)) == 1.0


@pytest.mark.parametrize("sign", [1, -1])
def test_interval_p_value_crosses_five_percent_with_zero_on_the_limit(sign):
    for near, far, below in [(0.01, 0.3, True), (-0.01, 0.3, False)]:
        low, high = sorted((sign * near, sign * far))
        assert (bootstrap.interval_p_value(sign * 0.15, low, high) < 0.05) is below
    assert bootstrap.interval_p_value(0.0, -0.1, 0.1) == 1.0
    assert np.isnan(bootstrap.interval_p_value(0.1, np.nan, np.nan))


def test_holm_equals_its_definition():
    values = [0.2, 0.001, np.nan, 0.013, 0.012]
    known = sorted(value for value in values if value == value)
    expected = {}
    for place, value in enumerate(known):
        step = min(1.0, value * (len(known) - place))
        expected[value] = max([step, *expected.values()])
    corrected = bootstrap.holm(np.array(values))
    np.testing.assert_allclose(corrected, [expected.get(value, np.nan) for value in values])
