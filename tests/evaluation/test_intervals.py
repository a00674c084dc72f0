import numpy as np
import pytest
from scipy import stats

from fopro_lab.evaluation import bootstrap as intervals


def test_bootstrap_weights_keep_each_class_and_draw_lesions_whole():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    units = np.array(["a", "a", "b", "c", "d", "d", "e", "f"])
    weights = intervals.bootstrap_weights(labels, units, resamples=200, seed=0)
    assert (weights[0] == weights[1]).all() and (weights[4] == weights[5]).all()
    assert (weights[[0, 2, 3]].sum(axis=0) == 3).all()  # three lesions drawn from three
    assert (weights[[4, 6]].sum(axis=0) == 2).all()
    assert (weights[7] == 1).all()  # a single lesion is always itself


def test_bootstrap_weights_have_the_moments_of_a_multinomial_draw():
    labels, units = np.zeros(10, int), np.arange(10).astype(str)
    weights = intervals.bootstrap_weights(labels, units, resamples=20_000, seed=1)
    # Standard error of a mean count: sqrt(0.9 / 20,000) = 0.007; a lost unit would show as 0.1.
    np.testing.assert_allclose(weights.mean(axis=1), 1, atol=0.03)
    np.testing.assert_allclose(weights.var(axis=1), 0.9, atol=0.05)
    covariance = np.cov(weights[0], weights[1])[0, 1]
    np.testing.assert_allclose(covariance, -0.1, atol=0.03)


def test_bootstrap_weights_follow_their_seed():
    labels, units = np.zeros(9, int), np.arange(9).astype(str)
    first, again, other = (
        intervals.bootstrap_weights(labels, units, resamples=5, seed=seed) for seed in (0, 0, 1)
    )
    assert (first == again).all() and (first != other).any()


def test_a_lesion_with_two_classes_is_drawn_on_its_own_in_each():
    labels, units = np.array([0, 0, 1, 1]), np.array(["a", "b", "a", "b"])
    weights = intervals.bootstrap_weights(labels, units, resamples=50, seed=0)
    assert (weights[0] != weights[2]).any()


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_seed_weights_give_the_mean_its_unbiased_variance(seeds):
    values = np.random.default_rng(0).normal(size=(seeds, 1))
    weights = intervals.seed_weights(seeds, resamples=40_000, seed=0)
    got = (weights * values).mean(axis=0)
    np.testing.assert_allclose(got.mean(), values.mean(), atol=0.02)
    # Without the stretch it would be (S - 1) / S of this: 17 % less for six seeds.
    np.testing.assert_allclose(got.var(), values.var(ddof=1) / seeds, rtol=0.05)


def test_seed_weights_of_one_seed_are_ones():
    assert (intervals.seed_weights(1, resamples=7, seed=0) == np.ones((1, 7))).all()


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (3, 10), (81, 263)])
def test_wilson_interval_equals_scipy(k, n):
    expected = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    got = intervals.wilson_interval(k / n, n)
    np.testing.assert_allclose(got, (expected.low, expected.high), atol=1e-12)


def test_wilson_interval_of_one_trial_is_wide_on_the_open_side():
    low, high = intervals.wilson_interval(1.0, 1)
    assert 0.2 < low < 0.21 and high == 1.0


def test_mean_interval_of_equal_normal_intervals_shrinks_with_the_root():
    got = intervals.mean_interval(np.full(4, 0.5), np.full(4, 0.3), np.full(4, 0.7))
    np.testing.assert_allclose(got, (0.4, 0.6), atol=1e-12)


def test_mean_interval_of_one_value_is_its_own():
    got = intervals.mean_interval(np.array([0.2]), np.array([0.1]), np.array([0.5]))
    np.testing.assert_allclose(got, (0.1, 0.5), atol=1e-12)


def test_difference_interval_combines_two_wilson_intervals():
    first, second = (stats.binomtest(k, 70).proportion_ci(0.95, method="wilson") for k in (56, 42))
    expected = (
        0.2 - np.sqrt((0.8 - first.low) ** 2 + (second.high - 0.6) ** 2),
        0.2 + np.sqrt((first.high - 0.8) ** 2 + (0.6 - second.low) ** 2),
    )
    np.testing.assert_allclose(intervals.difference_interval(0.8, 0.6, 70), expected, atol=1e-12)
    # Newcombe 1998, table II (a), has 56/70 against 48/80 at 0.0524 to 0.3339: close, not equal.
    np.testing.assert_allclose(expected, (0.0524, 0.3339), atol=0.01)


def test_difference_interval_turns_round_with_its_arguments():
    low, high = intervals.difference_interval(0.9, 0.4, 20)
    np.testing.assert_allclose(intervals.difference_interval(0.4, 0.9, 20), (-high, -low))


def test_basic_interval_mirrors_the_percentiles_and_holds_the_value():
    replicates = np.linspace(0.12, 0.2, 81)
    np.testing.assert_allclose(intervals.basic_interval(0.16, replicates), (0.122, 0.198))
    np.testing.assert_allclose(intervals.basic_interval(0.10, replicates), (0.002, 0.1))
    assert intervals.basic_interval(0.01, replicates)[0] == 0.0


def test_percentile_interval_of_an_unknown_value_is_unknown():
    assert np.isnan(intervals.percentile_interval(np.array([1.0, np.nan]))).all()


def test_sign_p_value_counts_the_smaller_side_twice():
    replicates = np.r_[np.full(10, -1.0), np.full(89, 1.0)]
    assert intervals.sign_p_value(replicates) == 2 * 11 / 100
    assert intervals.sign_p_value(np.zeros(99)) == 1.0
    assert np.isnan(intervals.sign_p_value(np.array([np.nan, 1.0])))


@pytest.mark.parametrize("sign", [1, -1])
def test_interval_p_value_crosses_five_percent_with_zero_on_the_limit(sign):
    for near, far, below in [(0.01, 0.3, True), (-0.01, 0.3, False)]:
        low, high = sorted((sign * near, sign * far))
        assert (intervals.interval_p_value(sign * 0.15, low, high) < 0.05) is below
    assert intervals.interval_p_value(0.0, -0.1, 0.1) == 1.0
    assert np.isnan(intervals.interval_p_value(0.1, np.nan, np.nan))
