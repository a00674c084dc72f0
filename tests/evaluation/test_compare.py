import re

import numpy as np
import pandas as pd
import pytest

from fopro_lab.errors import InputError
from fopro_lab.evaluation import (
    Run,
    compare,
    compare_teachers,
    dropped_lines,
    load_runs,
    pairings,
    score,
    score_runs,
    summarise,
    summarise_teachers,
)
from fopro_lab.evaluation.compare import group_families, merge_groups, pooled_protocol
from tests.evaluation.toy_runs import groups, predictions, write_run

COUNTS = (40, 30, 20, 12)


def run_of(folder, table=None, *, name="", **changes):
    """Write and read a run named by its method and seed."""
    name = name or f"{changes.get('method', 'bsm')}-{changes.get('seed', 0)}"
    return Run.read(write_run(folder / name, predictions() if table is None else table, **changes))


def overall(table, metric="balanced_accuracy"):
    found = table[(table["scope"] == "overall") & (table["metric"] == metric)]
    assert len(found) == 1
    return found.iloc[0]


def width(row):
    return row["high"] - row["low"]


def test_compare_subtracts_the_baseline(tmp_path):
    tables = [predictions(seed=seed) for seed in (1, 2)]
    runs = [run_of(tmp_path, t, method=m) for t, m in zip(tables, ("bsm", "ekd"), strict=True)]
    found = compare(runs, "bsm", resamples=50)
    scores = [score(table, groups(), "toy", resamples=2) for table in tables]
    np.testing.assert_allclose(found["difference"], scores[1]["value"] - scores[0]["value"])
    np.testing.assert_allclose(found["method_value"], scores[1]["value"])
    np.testing.assert_allclose(found["baseline_value"], scores[0]["value"])
    assert list(found.columns) == [
        *("method", "baseline", "scope", "name", "group", "metric"),
        *("method_value", "baseline_value", "difference", "low", "high"),
        *("n", "interval", "resampled", "p", "seeds", "folds", "varies", "protocol"),
    ]
    turned = compare(runs, "ekd", resamples=50)
    np.testing.assert_allclose(turned["difference"], -found["difference"], atol=1e-12)
    np.testing.assert_allclose(turned["low"], -found["high"], atol=1e-6)
    np.testing.assert_allclose(turned["p"], found["p"], atol=1e-6)


def slow_paired_bootstrap(folds, resamples):
    """Draw lesions of each class and fold once for both methods; subtract balanced accuracies."""
    rng = np.random.default_rng(3)
    lesions = []
    for ours, theirs in folds:
        hits = [
            t.filter(like="logit_").to_numpy().argmax(axis=1) == t["label"].to_numpy()
            for t in (ours, theirs)
        ]
        gain = hits[0].astype(float) - hits[1]
        by_class = [own.groupby("group").indices for _, own in ours.groupby("label")]
        start = [own.index[0] for _, own in ours.groupby("label")]
        lesions.append(
            [[gain[rows + s] for rows in c.values()] for c, s in zip(by_class, start, strict=True)]
        )
    values = []
    for _ in range(resamples):
        drawn = [
            np.mean([np.concatenate([c[rng.integers(len(c))] for _ in c]).mean() for c in fold])
            for fold in lesions
        ]
        values.append(np.mean(drawn))
    return np.quantile(values, [0.025, 0.975])


def test_compare_equals_a_slow_paired_bootstrap(tmp_path):
    counts = (40, 30, 30, 30)
    theirs, other = (predictions(counts, a_group=2, seed=seed) for seed in (1, 2))
    logits = [column for column in theirs if column.startswith("logit_")]
    ours = theirs.copy()
    ours[logits] += 0.5 * other[logits]  # the two runs agree on most images
    runs = [run_of(tmp_path, theirs), run_of(tmp_path, ours, method="ekd")]
    found = overall(compare(runs, "bsm", resamples=4000))
    assert found["interval"] == "bootstrap"
    # Monte Carlo noise of a limit is about 0.004; unpaired, the limits lie 0.03 further out.
    expected = slow_paired_bootstrap([(ours, theirs)], 1500)
    np.testing.assert_allclose((found["low"], found["high"]), expected, atol=0.012)
    alone = [overall(score(table, groups(counts), "toy")) for table in (ours, theirs)]
    assert np.hypot(*map(width, alone)) - width(found) > 0.04


def test_compare_of_a_run_with_its_copy_finds_nothing(tmp_path):
    runs = [run_of(tmp_path), run_of(tmp_path, method="ekd")]
    found = compare(runs, "bsm", resamples=50)
    assert (found["difference"] == 0).all() and found["p"].dropna().eq(1).all()
    recalls = found[found["scope"] == "class"]
    # No discordant image is no proof of equality: the interval stays open, more so in the tail.
    assert set(recalls["interval"]) == {"newcombe"}
    assert (recalls["low"] < 0).all() and (recalls["high"] > 0).all()
    assert width(recalls).iloc[3] > width(recalls).iloc[0]


def test_one_lesion_won_is_no_significant_win(tmp_path):
    theirs = predictions((30, 30, 30, 1))
    ours = theirs.copy()
    theirs.loc[theirs["label"] == 3, "logit_df"] = -9.0
    ours.loc[ours["label"] == 3, "logit_df"] = 9.0
    runs = [run_of(tmp_path, theirs), run_of(tmp_path, ours, method="ekd")]
    found = compare(runs, "bsm", resamples=200)
    df = found[found["name"] == "df"].iloc[0]
    assert (df["difference"], df["interval"]) == (1.0, "newcombe")
    assert df["low"] < 0 and df["p"] > 0.05


def test_compare_averages_over_common_seeds_only(tmp_path):
    tables = {seed: predictions(seed=seed) for seed in range(5)}
    runs = [run_of(tmp_path, tables[seed], seed=seed) for seed in (0, 1)]
    runs += [run_of(tmp_path, tables[2 + s], method="ekd", seed=s) for s in (0, 1, 2)]
    found = overall(compare(runs, "bsm", resamples=50))
    value = [
        overall(score(tables[seed], groups(), "toy", resamples=2))["value"] for seed in range(4)
    ]
    assert found["difference"] == pytest.approx((value[2] + value[3] - value[0] - value[1]) / 2)
    assert (found["seeds"], found["varies"]) == (2, "images and seeds")


def test_seeds_that_disagree_widen_the_interval(tmp_path):
    base = predictions((60, 60, 60, 60), seed=1, skill=1)
    good, bad = (predictions((60, 60, 60, 60), seed=2, skill=skill) for skill in (2.5, 0.0))
    runs = [run_of(tmp_path, base, seed=seed) for seed in (0, 1)]
    runs += [run_of(tmp_path, t, method="ekd", seed=s) for s, t in enumerate((good, bad))]
    found = overall(compare(runs, "bsm"))
    alone = overall(compare([runs[0], runs[2]], "bsm"))
    assert width(found) > 3 * width(alone)
    assert alone["varies"] == "images" and alone["low"] > 0 > found["low"]


class InMemory(Run):
    """A run whose predictions never touched a disk."""

    def __init__(self, method, table):
        manifest = {
            "config": {"method": method, "seed": 0},
            "protocol": "toy",
            "split_fingerprint": "abc",
            "class_names": ["nv", "mel", "bkl"],
            "groups": {"nv": "head", "mel": "medium", "bkl": "tail"},
        }
        object.__setattr__(self, "path", None)
        object.__setattr__(self, "manifest", manifest)
        self.__dict__["predictions"] = table


def test_intervals_of_a_difference_hold_the_truth_about_95_times_in_100():
    """200 tiny test sets, paired hits with known recalls; chance alone spans 0.90 to 0.99."""
    rng = np.random.default_rng(0)
    counts, ours_right, both = (40, 25, 15), (0.8, 0.7, 0.6), 0.5
    labels = np.repeat(np.arange(3), counts)
    truth = np.mean(ours_right) - 0.55
    held = 0
    for _ in range(200):
        shared = rng.random(len(labels)) < both  # images on which one draw decides for both
        draws = rng.random((2, len(labels)))
        draws[1, shared] = draws[0, shared]
        right = draws < np.stack([np.array(ours_right)[labels], np.full(len(labels), 0.55)])
        runs = []
        for method, hit in zip(("ekd", "bsm"), right, strict=True):
            table = predictions(counts)
            logits = np.eye(3)[np.where(hit, labels, (labels + 1) % 3)]
            table[[f"logit_{name}" for name in ("nv", "mel", "bkl")]] = logits
            runs.append(InMemory(method, table))
        found = overall(compare(runs, "bsm", resamples=200))
        held += found["low"] <= truth <= found["high"]
    assert 0.90 <= held / 200 <= 0.99


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"protocol": "toy/96px"},
            "ekd-0: expected the protocol of {0}, 'toy/64px/seed0', got 'toy/96px'; compare only",
        ),
        ({"split_fingerprint": "xyz"}, "expected the split_fingerprint of {0}, 'abc', got 'xyz'"),
        (
            {"class_names": ["a", "b"]},
            "expected the class_names of {0}, ['nv', 'mel', 'bkl', 'df']",
        ),
        ({"method": "bsm"}, "expected one run of 'bsm' with seed 0, got also {0}; leave one out"),
        (
            {"seed": 5},
            "ekd: expected a seed in common with 'bsm', got 5 of toy/64px/seed0 against 0",
        ),
    ],
)
def test_compare_refuses_runs_that_do_not_belong_together(tmp_path, changes, message):
    first = run_of(tmp_path)
    second = run_of(tmp_path, name="ekd-0", **({"method": "ekd"} | changes))
    with pytest.raises(InputError, match=re.escape(message.format(first.path))) as caught:
        compare([first, second], "bsm")
    assert "\n" not in str(caught.value)


def test_compare_needs_its_baseline_and_another_method(tmp_path):
    run = run_of(tmp_path)
    with pytest.raises(InputError, match="baseline: expected one of bsm, got 'ce'"):
        compare([run], "ce")
    with pytest.raises(InputError, match="runs: expected another method beside 'bsm', got none"):
        compare([run], "bsm")


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        # All share data and student; seeds of one method share every option.
        ({"method": "bsm"}, {"method": "ekd", "epochs": 40}, "epochs: expected"),
        ({"method": "bsm"}, {"method": "bsm", "seed": 1, "teacher": "x"}, "teacher: expected"),
        ({"method": "bsm"}, {"method": "ekd", "teacher": "x", "threads": 2}, ""),
        # Methods with a prompt share teacher and prompt, EKD has no prompt to share.
        ({"method": "fopro"}, {"method": "random", "distill_weight": 9.0}, "distill_weight: exp"),
        ({"method": "fopro"}, {"method": "random", "weights": "x"}, "weights: expected ''"),
        ({"method": "fopro"}, {"method": "random", "prompt_form": "radial"}, "prompt_form: expec"),
        ({"method": "ekd"}, {"method": "fopro", "prompt_form": "radial"}, ""),
        # Version 0.1: older than an option, options by their old names, an option that is gone.
        ({"method": "bsm"}, {"method": "ekd", "teacher_mean": []}, ""),
        ({"method": "fopro", "explore_steps": 9}, {"method": "random", "prompt_steps": 9}, ""),
        ({"method": "fopro", "explore_steps": 8}, {"method": "random"}, "prompt_steps: expected 8"),
        ({"method": "bsm", "decoder": "draft"}, {"method": "ekd"}, "decoder: expected 'draft'"),
    ],
)
def test_compare_refuses_runs_of_another_recipe(tmp_path, one, other, message):
    runs = [
        run_of(tmp_path, name=str(place), config={"seed": 0, **config})
        for place, config in enumerate((one, other))
    ]
    runs.append(run_of(tmp_path, name="peer", method="ce"))
    if not message:
        assert len(compare(runs, "ce", resamples=20)) > 0
        return
    with pytest.raises(InputError, match=rf"{message}.* as in .*; compare runs of one recipe"):
        compare(runs, "ce", resamples=20)


def test_methods_with_a_teacher_share_its_file(tmp_path):
    runs = [
        run_of(tmp_path, method=method, teacher={"sha256": sha256})
        for method, sha256 in (("ekd", "aa"), ("fopro", "bb"))
    ]
    with pytest.raises(InputError, match="expected the teacher's weights of"):
        compare(runs, "ekd", resamples=20)


def test_score_runs_and_summarise_have_one_block_and_one_row_per_method(tmp_path):
    tables = [predictions(seed=seed) for seed in range(3)]
    runs = [run_of(tmp_path, tables[s], seed=s) for s in (0, 1)]
    runs += [run_of(tmp_path, tables[2], method="ekd")]
    scores = score_runs(runs, resamples=50)
    assert scores.groupby("method", sort=False)["seeds"].first().to_dict() == {"bsm": 2, "ekd": 1}
    single = score(tables[2], groups(), "toy/64px/seed0", resamples=50)
    own = scores[scores["method"] == "ekd"].drop(columns=["method", "seeds", "folds"])
    pd.testing.assert_frame_equal(own.reset_index(drop=True), single)
    headline = summarise(runs, resamples=50)
    assert headline["method"].tolist() == ["bsm", "ekd"]
    assert headline["seeds"].tolist() == [2, 1] and headline["n"].tolist() == [76, 76]
    assert headline["tail"].iloc[1] == single.query("name == 'tail'")["value"].item()
    assert (headline["balanced_accuracy_low"] < headline["balanced_accuracy"]).all()


def test_summarise_never_averages_protocols_and_leaves_a_missing_group_unknown(tmp_path):
    table = predictions((20, 10))
    runs = [run_of(tmp_path, table, name=name, protocol=name) for name in ("one", "two")]
    headline = summarise(runs, resamples=10)
    assert headline["protocol"].tolist() == ["one", "two"]
    assert headline["medium"].isna().all() and headline["head"].notna().all()


def write_folds(folder, method, *, folds=(1, 2, 3), seeds=(0, 1), skill=1.0, shared=False):
    """Runs of several folds; lesions and images are named after the fold unless ``shared``."""
    runs = []
    for fold in folds:
        for seed in seeds:
            table = predictions(COUNTS, seed=100 * fold + seed, skill=skill, a_group=2)
            for column in () if shared else ("image", "group"):
                table[column] = f"fold{fold}_" + table[column]
            changes = {
                "config": {"method": method, "seed": seed, "fold": fold},
                "protocol": f"toy/folds3/seed0/fold{fold}",
                "split_fingerprint": f"f{fold}",
            }
            runs.append(run_of(folder, table, name=f"{method}-{fold}-{seed}", **changes))
    return runs


def test_scores_and_differences_of_folds_are_the_mean_of_the_folds_own(tmp_path):
    ours, theirs = write_folds(tmp_path, "ekd", skill=1.4), write_folds(tmp_path, "bsm")
    single = [score(run.predictions, groups(COUNTS), "toy", resamples=2) for run in theirs]
    found = score_runs(theirs, resamples=20)
    np.testing.assert_allclose(found["value"], np.mean([t["value"] for t in single], axis=0))
    row = overall(found)
    assert (row["seeds"], row["folds"], row["n"]) == (2, 3, 3 * sum(COUNTS))
    assert row["protocol"] == "toy/folds3/seed0/fold1+2+3"
    found = compare([*theirs, *ours], "bsm", resamples=20)
    own = [
        compare([r for r in (*theirs, *ours) if r.config["fold"] == fold], "bsm", resamples=2)
        for fold in (1, 2, 3)
    ]
    expected = np.mean([table["difference"] for table in own], axis=0)
    np.testing.assert_allclose(found["difference"], expected)
    row = overall(found)
    assert (row["varies"], row["seeds"], row["folds"]) == ("images, seeds and folds", 2, 3)
    partly = compare([*theirs, *(run for run in ours if run.config["fold"] != 2)], "bsm")
    assert set(partly["protocol"]) == {"toy/folds3/seed0/fold1+3"} and set(partly["folds"]) == {2}


def test_intervals_of_equal_folds_equal_a_slow_bootstrap_within_the_folds(tmp_path):
    # Three copies of one fold: nothing lies between the folds beyond their images.
    base = {m: predictions(COUNTS, seed=s, skill=k, a_group=2)
            for m, s, k in (("ekd", 1, 1.6), ("bsm", 0, 1.0))}  # fmt: skip
    runs, tables = [], {"bsm": [], "ekd": []}
    for fold in (1, 2, 3):
        for method, table in base.items():
            own = table.assign(image=f"{fold}" + table["image"], group=f"{fold}" + table["group"])
            tables[method].append(own)
            config = {"method": method, "seed": 0, "fold": fold}
            about = {"config": config, "protocol": f"toy/folds3/seed0/fold{fold}"}
            runs.append(run_of(tmp_path, own, name=f"{method}-{fold}", **about))
    found = overall(compare(runs, "bsm", resamples=4000))
    pairs = list(zip(tables["ekd"], tables["bsm"], strict=True))
    # Monte Carlo noise of a limit is 0.003; a single fold's limits lie 0.04 further out.
    expected = slow_paired_bootstrap(pairs, 1500)
    np.testing.assert_allclose((found["low"], found["high"]), expected, atol=0.01)


def test_folds_that_test_an_image_twice_stay_apart(tmp_path):
    runs = write_folds(tmp_path, "bsm", folds=(1, 2), shared=True)
    runs += write_folds(tmp_path, "ekd", folds=(1, 2), shared=True)
    assert [len(members) for members in group_families(runs)] == [4, 4]
    table = score_runs(runs, resamples=20)
    assert set(table["protocol"]) == {"toy/folds3/seed0/fold1", "toy/folds3/seed0/fold2"}
    with pytest.raises(InputError, match="share no tested lesion, patient or image, got 51 in"):
        compare(runs, "bsm", resamples=20)


def test_names_and_groups_of_folds():
    names = [f"toy/folds3/seed0/fold{fold}" for fold in (2, 1)]
    assert pooled_protocol(names) == "toy/folds3/seed0/fold1+2"
    assert pooled_protocol(["toy/seed0"]) == "toy/seed0"
    ours, theirs = {"mel": "head", "df": "tail"}, {"mel": "medium", "df": "tail"}
    assert merge_groups([ours, ours, theirs]) == ours
    assert merge_groups([ours, theirs]) == theirs


def test_pairings_name_every_run_that_a_difference_does_not_rest_on(tmp_path):
    states = {("bsm", 0): "done", ("bsm", 1): "done", ("bsm", 2): "done", ("ekd", 0): "done",
              ("ekd", 1): "failed", ("ekd", 2): "done", ("fopro", 0): "done"}  # fmt: skip
    for (method, seed), state in states.items():
        run_of(tmp_path, predictions(seed=seed), method=method, seed=seed, state=state)
    (tmp_path / "ekd-2" / "predictions.parquet").unlink()
    table = pairings(load_runs(tmp_path, unfinished=True), "bsm").set_index(["method", "seed"])
    assert table["paired"].tolist() == [True, False, False, True, False, False, True]
    assert table.loc[("ekd", 1), "reason"] == "not finished: failed"
    assert table.loc[("ekd", 2), "reason"] == "no predictions.parquet"
    assert table.loc[("bsm", 1), "reason"] == "no run of ekd, fopro has its seed and fold"
    lines = dropped_lines(table.reset_index())
    assert len(lines) == 4 and all(line.startswith("left out: ") for line in lines)
    run_of(tmp_path, method="fopro", seed=1)
    runs = load_runs(tmp_path, unfinished=True)
    [line] = [line for line in dropped_lines(pairings(runs, "bsm"))
              if "bsm-1" in line]  # fmt: skip
    assert "used against fopro alone" in line and "no run of ekd" in line


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("taught"), []
    for name, skill, config in (
        ("alone", 1.0, {"method": "bsm"}),
        ("a-ekd", 1.5, {"method": "ekd", "teacher": "builtin", "teacher_size": 32}),
        ("a-fopro", 2.0, {"method": "fopro", "teacher": "builtin", "teacher_size": 32}),
        ("b-ekd", 0.8, {"method": "ekd", "teacher": "timm:resnet18"}),
        ("b-fopro", 1.3, {"method": "fopro", "teacher": "timm:resnet18"}),
        ("large", 1.0, {"method": "bsm", "student": "resnet18"}),
        ("large-ekd", 1.4, {"method": "ekd", "student": "resnet18"}),
    ):
        table = predictions(seed=sum(map(ord, name)), skill=skill)
        config = {"seed": 0, "student": "small", **config}
        found.append(run_of(folder, table, name=name, config=config))
    return found


def test_each_teacher_and_student_is_compared_as_if_it_were_alone(taught):
    found = compare_teachers(taught, [("ekd", "bsm"), ("fopro", "ekd")], resamples=50)
    small = found[found["student"] == "small"]
    assert list(dict.fromkeys(small["teacher"])) == ["builtin, 32 px", "resnet18"]
    part = small[(small["teacher"] == "resnet18") & (small["method"] == "ekd")]
    expected = compare([taught[0], taught[3]], "bsm", resamples=50)
    pd.testing.assert_frame_equal(
        part[expected.columns].reset_index(drop=True), expected, check_dtype=False
    )
    assert set(found.loc[found["student"] == "resnet18", "teacher"]) == {"builtin"}
    with pytest.raises(InputError, match=r"expected both methods of a pair \(random against ekd\)"):
        compare_teachers(taught, [("random", "ekd")])


def test_p_values_are_corrected_over_the_teachers_of_one_pair_and_number(taught):
    found = compare_teachers(taught, [("ekd", "bsm"), ("fopro", "ekd")], resamples=200)
    one = found[(found["method"] == "ekd") & (found["student"] == "small")]
    one = one[one["metric"] == "balanced_accuracy"]
    low, high = sorted(one["p"])
    assert sorted(one["p_holm"]) == pytest.approx(sorted([min(1, 2 * low), max(2 * low, high)]))


def test_levels_have_a_row_for_each_teacher_and_method(taught):
    found = summarise_teachers(taught[:5], resamples=20)
    assert found[["teacher", "method"]].values.tolist() == [
        ["none", "bsm"],
        *(["builtin, 32 px", method] for method in ("ekd", "fopro")),
        *(["resnet18", method] for method in ("ekd", "fopro")),
    ]
    own = summarise([taught[1]], resamples=20)
    assert found["tail"][1] == own["tail"][0] and found["tail_low"][1] == own["tail_low"][0]
