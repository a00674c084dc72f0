import re

import numpy as np
import pandas as pd
import pytest

from fopro_lab.errors import InputError
from fopro_lab.evaluation import Run, compare, load_runs, score, score_runs, summarise
from tests.evaluation.toy_runs import groups, predictions, write_run


def run_of(folder, table, **changes):
    name = f"{changes.get('method', 'bsm')}-{changes.get('seed', 0)}"
    return Run.read(write_run(folder / name, table, **changes))


def overall(table, metric="balanced_accuracy"):
    found = table[(table["scope"] == "overall") & (table["metric"] == metric)]
    assert len(found) == 1
    return found.iloc[0]


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
    assert set(found["method"]) == {"ekd"} and set(found["baseline"]) == {"bsm"}
    turned = compare(runs, "ekd", resamples=50)
    np.testing.assert_allclose(turned["difference"], -found["difference"], atol=1e-12)
    np.testing.assert_allclose(turned["low"], -found["high"], atol=1e-6)
    np.testing.assert_allclose(turned["p"], found["p"], atol=1e-6)


def slow_paired_bootstrap(ours, theirs, resamples):
    """Draw lesions of each class once for both methods, and subtract balanced accuracies."""
    rng = np.random.default_rng(3)
    hits = [
        t.filter(like="logit_").to_numpy().argmax(axis=1) == t["label"].to_numpy()
        for t in (ours, theirs)
    ]
    gain = hits[0].astype(float) - hits[1]
    lesions = [
        [gain[rows.index] for _, rows in own.groupby("group")] for _, own in ours.groupby("label")
    ]
    values = []
    for _ in range(resamples):
        drawn = ([own[rng.integers(len(own))] for _ in own] for own in lesions)
        values.append(np.mean([np.concatenate(lesion).mean() for lesion in drawn]))
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
    expected = slow_paired_bootstrap(ours, theirs, 1500)
    np.testing.assert_allclose((found["low"], found["high"]), expected, atol=0.012)
    alone = [overall(score(table, groups(counts), "toy")) for table in (ours, theirs)]
    unpaired = np.hypot(*[(each["high"] - each["low"]) / 2 for each in alone])
    assert unpaired - (found["high"] - found["low"]) / 2 > 0.02


def test_compare_of_a_run_with_its_copy_finds_nothing(tmp_path, table):
    runs = [run_of(tmp_path, table), run_of(tmp_path, table, method="ekd")]
    found = compare(runs, "bsm", resamples=50)
    assert (found["difference"] == 0).all()
    assert found["p"].dropna().eq(1).all()
    recalls = found[found["scope"] == "class"]
    # No discordant image is no proof of equality: the interval stays open, more so in the tail.
    assert set(recalls["interval"]) == {"newcombe"}
    assert (recalls["low"] < 0).all() and (recalls["high"] > 0).all()
    width = (recalls["high"] - recalls["low"]).to_numpy()
    assert width[3] > width[0]


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
    assert found["high"] - found["low"] > 3 * (alone["high"] - alone["low"])
    assert alone["varies"] == "images" and alone["low"] > 0 > found["low"]


def test_intervals_of_a_difference_hold_the_truth_about_95_times_in_100(tmp_path):
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
def test_compare_refuses_runs_that_do_not_belong_together(tmp_path, table, changes, message):
    first = run_of(tmp_path, table)
    folder = tmp_path / "ekd-0"
    second = Run.read(write_run(folder, table, **({"method": "ekd"} | changes)))
    with pytest.raises(InputError, match=re.escape(message.format(first.path))) as caught:
        compare([first, second], "bsm")
    assert "\n" not in str(caught.value)


def test_compare_needs_its_baseline_and_something_beside_it(tmp_path, table):
    run = run_of(tmp_path, table)
    with pytest.raises(InputError, match="baseline: expected one of bsm, got 'ce'"):
        compare([run], "ce")
    with pytest.raises(InputError, match="runs: expected another method beside 'bsm', got none"):
        compare([run], "bsm")


def test_score_runs_and_summarise_have_one_block_and_one_row_a_method(tmp_path):
    tables = [predictions(seed=seed) for seed in range(3)]
    runs = [run_of(tmp_path, tables[s], seed=s) for s in (0, 1)]
    runs += [run_of(tmp_path, tables[2], method="ekd")]
    tidy = score_runs(runs, resamples=50)
    assert tidy.groupby("method", sort=False)["seeds"].first().to_dict() == {"bsm": 2, "ekd": 1}
    single = score(tables[2], groups(), "toy/64px/seed0", resamples=50)
    own = tidy[tidy["method"] == "ekd"].drop(columns=["method", "seeds", "folds"])
    pd.testing.assert_frame_equal(own.reset_index(drop=True), single)
    headline = summarise(runs, resamples=50)
    assert headline["method"].tolist() == ["bsm", "ekd"]
    assert headline["seeds"].tolist() == [2, 1] and headline["n"].tolist() == [76, 76]
    assert headline["tail"].iloc[1] == single.query("name == 'tail'")["value"].item()
    assert (headline["balanced_accuracy_low"] < headline["balanced_accuracy"]).all()


def test_summarise_never_averages_across_protocols(tmp_path, table):
    runs = [
        Run.read(write_run(tmp_path / protocol, table, seed=seed, protocol=protocol))
        for seed, protocol in enumerate(("one", "two"))
    ]
    assert summarise(runs, resamples=10)["protocol"].tolist() == ["one", "two"]


def test_summarise_leaves_a_missing_group_unknown(tmp_path):
    runs = [run_of(tmp_path, predictions((20, 10)))]
    headline = summarise(runs, resamples=10)
    assert headline["medium"].isna().all() and headline["head"].notna().all()


@pytest.mark.parametrize(
    ("method", "knob", "refused"),
    [
        ("ekd", {"epochs": 40}, True),  # the recipe of the data or the student differs
        ("bsm", {"teacher": "other"}, True),  # seeds of one method share every knob
        ("ekd", {"teacher": "other"}, False),  # a baseline has no teacher to agree upon
        ("ekd", {"threads": 2}, False),
    ],
)
def test_compare_refuses_runs_of_another_recipe(tmp_path, method, knob, refused):
    table = predictions()
    for name, seed in (("bsm", 0), ("ekd", 0)):
        write_run(tmp_path / name, table, method=name, seed=seed)
    config = {"method": method, "seed": 1, **knob}
    write_run(tmp_path / "other", table, method=method, seed=1, config=config)
    if method == "ekd" and not refused:  # the peer of the same method has the knob, too
        write_run(tmp_path / "ekd", table, method="ekd", config={**config, "seed": 0})
    runs = load_runs(tmp_path)
    if not refused:
        assert len(compare(runs, "bsm", resamples=20)) > 0
        return
    (name,) = knob
    with pytest.raises(InputError, match=rf": {name}: expected .* as in .*; compare runs of one"):
        compare(runs, "bsm", resamples=20)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distill_weight": 9.0}, "distill_weight: expected 3.0"),
        ({"weights": "other.safetensors"}, "weights: expected ''"),
        ({"prompt_form": "radial"}, "prompt_form: expected 'generator'"),
        ({"prompted_fraction": 0.1}, "prompted_fraction: expected 0.75"),
    ],
)
def test_methods_with_a_prompt_share_teacher_and_prompt(tmp_path, table, changes, message):
    first = run_of(tmp_path, table, method="fopro")
    config = {"method": "random", "seed": 0, **changes}
    other = Run.read(write_run(tmp_path / "other", table, config=config))
    with pytest.raises(InputError, match=re.escape(message)):
        compare([first, other], "fopro", resamples=20)


def test_methods_with_a_teacher_share_its_file(tmp_path, table):
    runs = [
        Run.read(
            write_run(
                tmp_path / method,
                table,
                config={"method": method, "seed": 0},
                teacher={"sha256": sha},
            )
        )
        for method, sha in (("ekd", "aa"), ("fopro", "bb"))
    ]
    with pytest.raises(InputError, match="expected the teacher's weights of"):
        compare(runs, "ekd", resamples=20)


def test_ekd_need_not_share_a_prompt(tmp_path, table):
    config = {"method": "fopro", "seed": 0, "prompt_form": "radial"}
    runs = [
        run_of(tmp_path, table, method="ekd"),
        Run.read(write_run(tmp_path / "fopro", table, config=config)),
    ]
    assert len(compare(runs, "ekd", resamples=20)) > 0


def test_a_run_older_than_a_knob_is_one_of_its_default(tmp_path, table):
    config = {"method": "ekd", "seed": 0, "epochs": 10, "teacher_mean": []}
    new = Run.read(write_run(tmp_path / "new", table, config=config))
    assert len(compare([run_of(tmp_path, table), new], "bsm", resamples=20)) > 0
