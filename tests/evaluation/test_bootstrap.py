import numpy as np
import pytest
from scipy import stats

from fopro_lab.evaluation import bootstrap
from tools.coverage import Design, coverage


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


def test_group_covariance_equals_leaving_out_one_group_after_the_other():
    rng = np.random.default_rng(0)
    units = np.array(list("aaabbcddddee"))
    hits = rng.random((3, len(units)))
    left_out = np.array([hits[:, units != unit].mean(axis=1) for unit in "abcde"])
    expected = 4 / 5 * (left_out - left_out.mean(axis=0)).T @ (left_out - left_out.mean(axis=0))
    np.testing.assert_allclose(bootstrap.group_covariance(hits, units), expected, rtol=1e-12)
    assert (bootstrap.group_covariance(hits, np.zeros(len(units))) == 0).all()


def test_mean_error_is_that_of_a_t_interval_where_one_thing_varies():
    values, nothing = np.array([0.1, 0.5, 0.3]), [(np.zeros((3, 3)), 4.0)]
    error, quantile = bootstrap.mean_error([values], [nothing])
    assert error == pytest.approx(stats.sem(values)) and quantile == pytest.approx(4.3027, abs=1e-4)
    shared = [(np.full((3, 3), 0.04), 4.0)]
    error, quantile = bootstrap.mean_error([np.full(3, 0.3)], [shared])
    assert error == pytest.approx(0.2) and quantile == pytest.approx(2.7764, abs=1e-4)
    folds = [np.full(1, each) for each in values]
    error, quantile = bootstrap.mean_error(folds, [[(np.zeros((1, 1)), 4.0)]] * 3)
    assert error == pytest.approx(stats.sem(values)) and quantile == pytest.approx(4.3027, abs=1e-4)


def test_seeds_needed_is_that_of_a_power_table():
    values = [np.array([-0.01, 0.03])]  # standard deviation 0.0283
    two_folds = [np.array([0.0, 0.2]), np.array([0.5, 0.5, 0.5])]  # squares 0.02 over 3
    assert bootstrap.seed_spread(two_folds) == pytest.approx((0.02 / 3) ** 0.5)
    assert bootstrap.seeds_needed(values, 0.01) == np.ceil(7.849 * 0.0008 / 0.0001)
    assert bootstrap.seeds_needed(values, 1.0) == 1 and bootstrap.seeds_needed(values, 0) == np.inf
    assert np.isnan(bootstrap.seeds_needed([np.array([0.1])], 0.01))


@pytest.mark.parametrize(
    ("groups", "seeds", "folds"), [(5, 1, 1), (10, 3, 1), (10, 2, 1), (20, 2, 3)]
)
def test_intervals_hold_the_truth_with_few_groups_and_seeds(groups, seeds, folds):
    held = coverage(Design(groups, seeds, folds), repeats=150)
    # Percentiles of a bootstrap held 0.79 to 0.91 of 5 groups; a standard error is 0.018.
    assert min(held.values()) >= 0.91 and np.mean(list(held.values())) < 0.995, held


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


@pytest.mark.parametrize("sign", [1, -1])
def test_interval_p_value_crosses_five_percent_with_zero_on_the_limit(sign):
    for near, far, below in [(0.01, 0.3, True), (-0.01, 0.3, False)]:
        low, high = sorted((sign * near, sign * far))
        assert (bootstrap.interval_p_value(sign * 0.15, low, high) < 0.05) is below
        for quantile in (1.97, 4.3, 12.7):
            p = bootstrap.interval_p_value(sign * 0.15, low, high, quantile=quantile)
            assert (p < 0.05) is below
    of_t = bootstrap.interval_p_value(3.0, 3 - 4.302653, 3 + 4.302653, quantile=4.302653)
    assert of_t == pytest.approx(2 * stats.t.sf(3, 2), abs=1e-6)
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


def test_seeds_that_agree_by_chance_leave_a_quarter_of_the_variance_that_these_seeds_have():
    """Two seeds miss one image of six each, not the same: no spread between, none shared."""
    hits, images = np.array([[1, 1, 1, 1, 1, 0], [1, 0, 1, 1, 1, 1.0]]), np.arange(6)
    covariance = bootstrap.group_covariance(hits, images)
    error, _ = bootstrap.mean_error([hits.mean(axis=1)], [[(covariance, 5)]])
    mean = hits.mean(axis=0)  # of an image, over both seeds; Bessel's correction as for one seed
    assert error == pytest.approx(np.sqrt(mean.var(ddof=1) / 6 / 4))
    assert error > 0.05  # it was 0


NOISY = ((0.01, 1e-18, 10), (0.002, -9.99e-19, 36))  # seeds that cancel each other to rounding


def test_seeds_that_are_each_right_where_the_other_is_not_still_have_an_error():
    """Over groups their mean does not vary at all, nor does it between them: 0.5 in both."""
    hits, images = np.array([[1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1.0]]), np.arange(6)
    covariance = bootstrap.group_covariance(hits, images)
    error, quantile = bootstrap.mean_error([hits.mean(axis=1)], [[(covariance, 5)]])
    assert error == pytest.approx(np.sqrt(hits[0].var(ddof=1) / 6 / 2 / 8))  # it was 0
    assert quantile == pytest.approx(2.5706, abs=1e-4)
    parts = [(np.array([[a, -a], [-a, a]]) + noise, df) for a, noise, df in NOISY]
    error, quantile = bootstrap.mean_error([np.full(2, 0.5)], [[*parts, (np.zeros((2, 2)), 0)]])
    assert error == pytest.approx(np.sqrt(0.012 / 2 / 8))
    # Satterthwaite's of 0.01 and 0.002, of seeds that share nothing; it was not a number
    assert quantile == pytest.approx(stats.t.ppf(0.975, 0.012**2 / (0.01**2 / 10 + 0.002**2 / 36)))
