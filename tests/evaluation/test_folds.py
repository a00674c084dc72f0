import numpy as np
import pandas as pd
import pytest

from fopro_lab.errors import InputError
from fopro_lab.evaluation import Run, compare, score, score_runs, summarise
from fopro_lab.evaluation.bootstrap import mean_over_trainings
from fopro_lab.evaluation.compare import family, group_families, merge_groups, pooled_protocol
from tests.evaluation.toy_runs import groups, predictions, write_run

COUNTS = (40, 30, 20, 12)


def tables_of_fold(fold, *, seeds=(0, 1), skill=1.0, shared=False):
    """One table a seed; lesions and images are named after the fold unless ``shared``."""
    tables = []
    for seed in seeds:
        table = predictions(COUNTS, seed=100 * fold + seed, skill=skill, a_group=2)
        if not shared:
            table["image"] = f"fold{fold}_" + table["image"]
            table["group"] = f"fold{fold}_" + table["group"]
        tables.append(table)
    return tables


def write_folds(folder, method, *, folds=(1, 2, 3), seeds=(0, 1), **options):
    runs = []
    for fold in folds:
        for seed, table in zip(seeds, tables_of_fold(fold, seeds=seeds, **options), strict=True):
            place = folder / f"{method}-{fold}-{seed}"
            changes = {
                "config": {"method": method, "seed": seed, "fold": fold},
                "protocol": f"toy/folds3/seed0/fold{fold}",
                "split_fingerprint": f"f{fold}",
            }
            runs.append(Run.read(write_run(place, table, **changes)))
    return runs


def whole(table, metric="balanced_accuracy"):
    found = table[(table["scope"] == "overall") & (table["metric"] == metric)]
    assert len(found) == 1
    return found.iloc[0]


def test_protocols_of_folds():
    names = [f"toy/folds3/seed0/fold{fold}" for fold in (2, 1)]
    assert {family(name) for name in names} == {"toy/folds3/seed0"}
    assert pooled_protocol(names) == "toy/folds3/seed0/fold1+2"
    assert family("toy/folds3/seed0") == "toy/folds3/seed0"


def test_a_class_takes_the_group_of_most_folds_and_the_rarer_of_two():
    ours, theirs = {"mel": "head", "df": "tail"}, {"mel": "medium", "df": "tail"}
    assert merge_groups([ours, ours, theirs]) == ours
    assert merge_groups([ours, theirs]) == theirs


def test_scores_of_folds_are_the_mean_of_the_folds_own(tmp_path):
    runs = write_folds(tmp_path, "bsm")
    found = score_runs(runs, resamples=50)
    single = [score(run.predictions, groups(COUNTS), "toy", resamples=2) for run in runs]
    expected = np.mean([table["value"] for table in single], axis=0)
    np.testing.assert_allclose(found["value"], expected)
    row = whole(found)
    assert (row["seeds"], row["folds"], row["n"]) == (2, 3, 3 * sum(COUNTS))
    assert row["protocol"] == "toy/folds3/seed0/fold1+2+3"
    assert summarise(runs, resamples=20)["folds"].tolist() == [3]


def test_differences_of_folds_are_the_mean_of_the_folds_own(tmp_path):
    runs = write_folds(tmp_path, "bsm") + write_folds(tmp_path, "ekd", skill=1.4)
    found = compare(runs, "bsm", resamples=50)
    own = [
        compare([run for run in runs if run.config["fold"] == fold], "bsm", resamples=2)
        for fold in (1, 2, 3)
    ]
    expected = np.mean([table["difference"] for table in own], axis=0)
    np.testing.assert_allclose(found["difference"], expected)
    row = whole(found)
    assert row["varies"] == "images, seeds and folds"
    assert (row["seeds"], row["folds"]) == (2, 3)


def test_a_fold_that_one_method_lacks_is_left_out(tmp_path):
    runs = write_folds(tmp_path, "bsm") + write_folds(tmp_path, "ekd", folds=(1, 3))
    found = compare(runs, "bsm", resamples=20)
    assert set(found["protocol"]) == {"toy/folds3/seed0/fold1+3"}
    assert set(found["folds"]) == {2}


def slow_intervals(ours, theirs, resamples):
    """Lesions of each class drawn within each fold, and nothing else: one seed, equal folds."""
    rng = np.random.default_rng(5)
    hits = [
        [t.filter(like="logit_").to_numpy().argmax(axis=1) == t["label"].to_numpy() for t in pair]
        for pair in zip(ours, theirs, strict=True)
    ]
    folds = []
    for table, (hit, other) in zip(ours, hits, strict=True):
        gain = hit.astype(float) - other
        folds.append(
            [
                [gain[rows.index] for _, rows in own.groupby("group")]
                for _, own in table.groupby("label")
            ]
        )
    values = []
    for _ in range(resamples):
        of_folds = []
        for lesions in folds:
            drawn = ([own[rng.integers(len(own))] for _ in own] for own in lesions)
            of_folds.append(np.mean([np.concatenate(lesion).mean() for lesion in drawn]))
        values.append(np.mean(of_folds))
    return np.quantile(values, [0.025, 0.975])


def test_intervals_of_equal_folds_equal_a_slow_bootstrap_within_the_folds(tmp_path):
    # Three copies of one fold: nothing lies between the folds beyond their images.
    def renamed(table, fold):
        return table.assign(
            image=f"{fold}" + table["image"].astype(str),
            group=f"{fold}" + table["group"].astype(str),
        )

    base = [tables_of_fold(1, seeds=(s,), skill=k)[0] for s, k in ((0, 1.0), (1, 1.6))]
    runs, tables = [], {"bsm": [], "ekd": []}
    for fold in (1, 2, 3):
        for method, table in zip(("bsm", "ekd"), base, strict=True):
            tables[method].append(renamed(table, fold))
            changes = {
                "config": {"method": method, "seed": 0, "fold": fold},
                "protocol": f"toy/folds3/seed0/fold{fold}",
            }
            place = tmp_path / f"{method}-{fold}"
            runs.append(Run.read(write_run(place, tables[method][-1], **changes)))
    found = whole(compare(runs, "bsm", resamples=4000))
    expected = slow_intervals(tables["ekd"], tables["bsm"], 1500)
    # Monte Carlo noise of a limit is 0.003; a single fold's limits lie 0.04 further out.
    np.testing.assert_allclose((found["low"], found["high"]), expected, atol=0.01)


@pytest.mark.parametrize(
    ("of_folds", "of_seeds", "of_images", "least"),
    # Where three folds differ by more than their images, three numbers say too little.
    [
        (0.0, 0.0, 0.03, 0.92),
        (0.0, 0.02, 0.02, 0.92),
        (0.02, 0.02, 0.02, 0.90),
        (0.03, 0, 0.01, 0.8),
    ],
)
def test_intervals_over_folds_hold_the_truth(of_folds, of_seeds, of_images, least):
    rng = np.random.default_rng(0)
    held, widths = [], []
    for number in range(300):
        values = rng.normal(0, of_folds, (3, 1)) + rng.normal(0, of_seeds, (3, 3))
        values += rng.normal(0, of_images * 3**0.5, (3, 1))
        drawn = [fold[:, None] + rng.normal(0, of_images * 3**0.5, (1, 300)) for fold in values]
        low, high = np.quantile(mean_over_trainings(drawn, seed=number), [0.025, 0.975])
        held.append(low <= 0 <= high)
        widths.append(high - low)
    exact = 3.92 * np.sqrt(of_folds**2 / 3 + of_seeds**2 / 9 + of_images**2)
    # Folds drawn whole would hold it 99.7 times in 100, 1.7 times too wide.
    assert least <= np.mean(held) <= 0.985
    assert 0.85 < np.mean(widths) / exact < 1.35


def test_folds_that_test_an_image_twice_stay_apart(tmp_path):
    runs = write_folds(tmp_path, "bsm", folds=(1, 2), shared=True)
    runs += write_folds(tmp_path, "ekd", folds=(1, 2), shared=True)
    assert [len(members) for members in group_families(runs)] == [4, 4]
    table = score_runs(runs, resamples=20)
    assert set(table["protocol"]) == {"toy/folds3/seed0/fold1", "toy/folds3/seed0/fold2"}
    with pytest.raises(InputError, match="share no tested lesion, patient or image, got 51 in"):
        compare(runs, "bsm", resamples=20)


def test_protocols_of_two_deals_are_no_folds_of_one(tmp_path):
    runs = write_folds(tmp_path, "bsm", folds=(1,))
    other = write_run(
        tmp_path / "other",
        tables_of_fold(2)[0],
        method="ekd",
        protocol="toy/folds5/seed0/fold2",
    )
    with pytest.raises(InputError, match="expected the protocol of"):
        compare([*runs, Run.read(other)], "bsm")


def test_one_fold_alone_scores_as_it_did(tmp_path):
    runs = write_folds(tmp_path, "bsm", folds=(1,), seeds=(0,))
    found = score_runs(runs, resamples=50).drop(columns=["method", "seeds", "folds"])
    expected = score(runs[0].predictions, groups(COUNTS), "toy/folds3/seed0/fold1", resamples=50)
    pd.testing.assert_frame_equal(found, expected)
