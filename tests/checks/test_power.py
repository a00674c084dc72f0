import numpy as np
import pytest

from fopro_lab.checks.power import detectable_differences, smallest_difference

GROUPS = {"nv": "head", "mel": "medium", "df": "tail", "vasc": "tail"}


def found_share(sizes, difference, *, discordance=0.2, runs=4000, seed=0):
    """Simulate paired methods and test their mean difference over classes, lesions kept whole.

    ``sizes`` holds, for each class, the number of images of each lesion.
    """
    rng = np.random.default_rng(seed)
    discordance = max(discordance, difference)
    chances = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    value, variance = np.zeros(runs), np.zeros(runs)
    for units in sizes:
        units = np.asarray(units, dtype=np.float64)
        outcome = rng.choice([1, -1, 0], p=chances, size=(runs, len(units))) * units
        value += outcome.sum(axis=1) / units.sum() / len(sizes)
        variance += (outcome**2).sum(axis=1) / units.sum() ** 2 / len(sizes) ** 2
    return float(np.mean(np.abs(value) > 1.96 * np.sqrt(np.maximum(variance, 1e-12))))


def table_of(sizes, names, **more):
    labels = np.concatenate([np.full(int(np.sum(u)), k) for k, u in enumerate(sizes)])
    units = np.concatenate(
        [np.repeat([f"{k}-{n}" for n in range(len(u))], u) for k, u in enumerate(sizes)]
    )
    made = detectable_differences(labels, units, class_names=names, groups=GROUPS, **more)
    return made.set_index("name")


def test_detectable_difference_is_found_in_four_of_five_simulated_tests():
    """Within 0.04; forgetting the lesions would promise a difference found in 0.66."""
    sizes = [np.tile([1, 2, 3], 60), np.tile([1, 1, 4], 100), np.tile([2], 80)]
    table = table_of(sizes, ("nv", "df", "vasc"))
    for name, own in (("nv", sizes[:1]), ("df", sizes[1:2]), ("tail", sizes[1:])):
        power = found_share(own, table.loc[name, "detectable"])
        assert power == pytest.approx(0.8, abs=0.04), name
    forgetful = smallest_difference(table.loc["df", "n"])
    assert found_share(sizes[1:2], forgetful) < 0.7


def test_groups_are_means_of_their_classes_and_a_class_without_images_shows_nothing():
    sizes = [[1] * 100, [1] * 90, [1] * 20, [1] * 60]
    table = table_of(sizes, ("nv", "mel", "df", "vasc"))
    assert table.loc["tail", "n"] == 80 and table.loc["tail", "scope"] == "group"
    assert table.loc["tail", "effective"] == pytest.approx(4 / (1 / 20 + 1 / 60))
    assert table.loc["all", "effective"] == pytest.approx(16 / sum(1 / len(s) for s in sizes))
    assert list(table.index) == ["nv", "mel", "df", "vasc", "head", "medium", "tail", "all"]
    table = table_of([[1] * 100, [1] * 50, []], ("nv", "mel", "df"))
    assert np.isnan(table.loc["df", "detectable"]) and np.isnan(table.loc["tail", "detectable"])
    assert table.loc["head", "detectable"] > 0
