import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import matthews_corrcoef

from fopro_lab.evaluation import (
    compare,
    compare_all,
    compare_teachers,
    dropped_lines,
    level_table,
    load_runs,
    score,
    score_runs,
    summarise,
    summarise_teachers,
    undertrained,
)
from fopro_lab.evaluation.compare import group_families, merge_groups
from tests.conftest import refuses
from tests.evaluation.toy_runs import groups, hits, predictions, run_of, slow_bootstrap, write_run

COUNTS = (40, 30, 20, 12)


def overall(table):
    return table[table["metric"] == "balanced_accuracy"].iloc[0]


def width(row):
    return row["high"] - row["low"]


def against(theirs, ours, **settings):
    """Compare two tables, of balanced softmax and of EKD."""
    return compare([run_of(theirs), run_of(ours, method="ekd")], "bsm", **settings)


def test_compare_subtracts_the_baseline():
    tables = [predictions(seed=seed) for seed in (1, 2)]
    found, turned = (against(*pair, resamples=50) for pair in (tables, tables[::-1]))
    theirs, ours = (score(table, groups(), "toy", resamples=2)["value"] for table in tables)
    np.testing.assert_allclose(found["difference"], ours - theirs)
    np.testing.assert_allclose(found[["method_value", "baseline_value"]].T, [ours, theirs])
    np.testing.assert_allclose(turned["difference"], -found["difference"], atol=1e-12)
    np.testing.assert_allclose(turned["low"], -found["high"], atol=1e-6)
    np.testing.assert_allclose(turned["p"], found["p"], atol=1e-6)


def test_compare_equals_a_slow_paired_bootstrap_also_over_equal_folds():
    counts = (40, 30, 30, 30)
    theirs, other = (predictions(counts, a_group=2, seed=seed) for seed in (1, 2))
    logits = [column for column in theirs if column.startswith("logit_")]
    ours = theirs.copy()
    ours[logits] += 0.5 * other[logits]  # the two runs agree on most images
    found = overall(against(theirs, ours, resamples=4000))
    assert found["interval"] == "t"
    # With 65 lesions t is near normal.
    # Monte Carlo noise of a limit is about 0.004; unpaired, the limits lie 0.03 further out.
    values = slow_bootstrap(ours, hits(ours) - 1.0 * hits(theirs), resamples=1500)
    expected = np.quantile(values, [0.025, 0.975])
    np.testing.assert_allclose((found["low"], found["high"]), expected, atol=0.012)
    alone = [overall(score(table, groups(counts), "toy")) for table in (ours, theirs)]
    assert np.hypot(*map(width, alone)) - width(found) > 0.04
    # Three copies of one fold: nothing lies between the folds beyond their images.
    folds = [
        run_of(
            table.assign(image=f"{fold}" + table["image"], group=f"{fold}" + table["group"]),
            config={"method": method, "seed": 0, "fold": fold},
            protocol=f"toy/folds3/seed0/fold{fold}",
        )
        for fold in (1, 2, 3)
        for method, table in (("ekd", ours), ("bsm", theirs))
    ]
    found = overall(compare(folds, "bsm", resamples=4000))
    # A single fold's limits lie 0.02 further out.
    expected = np.quantile(values.reshape(3, -1).mean(axis=0), [0.025, 0.975])
    np.testing.assert_allclose((found["low"], found["high"]), expected, atol=0.012)


def test_compare_of_a_run_with_its_copy_finds_nothing():
    found = against(predictions(), predictions(), resamples=50)
    assert (found["difference"] == 0).all() and found["p"].dropna().eq(1).all()
    recalls = found[found["scope"] == "class"]
    # No discordant image is no proof of equality: the interval stays open, more so in the tail.
    assert set(recalls["interval"]) == {"newcombe"}
    assert (recalls["low"] < 0).all() and (recalls["high"] > 0).all()
    assert width(recalls).iloc[3] > width(recalls).iloc[0]


@pytest.mark.parametrize(("lesions", "kind"), [(1, "none: 1 groups"), (5, "newcombe")])
def test_a_few_lesions_won_are_no_certain_win(lesions, kind):
    theirs = predictions((30, 30, 30, lesions))
    ours = theirs.copy()
    theirs.loc[theirs["label"] == 3, "logit_df"] = -9.0
    ours.loc[ours["label"] == 3, "logit_df"] = 9.0
    found = against(theirs, ours, resamples=200)
    df = found[found["name"] == "df"].iloc[0]
    assert (df["difference"], df["interval"]) == (1.0, kind)
    assert np.isnan(df["low"]) == np.isnan(df["p"]) == (lesions == 1)
    wanted = "cannot decide: no interval" if lesions == 1 else "higher for this one seed"
    assert df["verdict"] == wanted


def test_compare_averages_over_common_seeds_only():
    runs = [run_of(predictions(seed=seed), seed=seed) for seed in (0, 1)]
    runs += [run_of(predictions(seed=2 + s), method="ekd", seed=s) for s in (0, 1, 2)]
    found = overall(compare(runs, "bsm", resamples=50))
    value = [overall(run.table(resamples=2))["value"] for run in runs[:4]]
    assert found["difference"] == pytest.approx((value[2] + value[3] - value[0] - value[1]) / 2)
    assert (found["seeds"], found["varies"]) == (2, "images and seeds")


def test_seeds_that_disagree_widen_the_interval():
    base = predictions((60, 60, 60, 60), seed=1, skill=1)
    good, bad = (predictions((60, 60, 60, 60), seed=2, skill=skill) for skill in (2.5, 0.0))
    runs = [run_of(base, seed=seed) for seed in (0, 1)]
    runs += [run_of(t, method="ekd", seed=s) for s, t in enumerate((good, bad))]
    found = overall(compare(runs, "bsm"))
    alone = overall(compare([runs[0], runs[2]], "bsm"))
    assert width(found) > 3 * width(alone)
    assert (found["low"], found["high"]) == (-1, 1)  # no difference of accuracies is beyond
    assert alone["varies"] == "images" and alone["low"] > 0 > found["low"]
    assert found["verdict"] == "cannot decide: 1000 or more seeds would be needed"
    assert alone["verdict"] == "higher for this one seed" and np.isnan(alone["seeds_needed"])
    asked = overall(compare(runs, "bsm", effect=0.3))
    assert asked["verdict"] == f"cannot decide: {asked['seeds_needed']:.0f} seeds would be needed"
    assert 10 < asked["seeds_needed"] < 100


def three_methods():
    """Three seeds of each; the last is the best by far."""
    return [
        run_of(predictions(COUNTS, seed=9 * number + seed, skill=skill), method=method, seed=seed)
        for number, (method, skill) in enumerate((("bsm", 0.5), ("ekd", 0.7), ("ce", 3.0)))
        for seed in range(3)
    ]


def test_p_values_and_verdicts_agree_with_their_intervals():
    runs = three_methods()
    found = compare(runs, "bsm", resamples=50)
    outside = (found["low"] > 0) | (found["high"] < 0)
    assert outside.any() and not outside.all()
    assert ((found["p"] < 0.05) == outside).all()
    assert (found["verdict"].isin(["higher", "lower"]) == outside).all()


def test_every_pair_is_compared_as_alone_both_ways_with_p_corrected_over_the_pairs():
    runs = three_methods()
    runs.append(run_of(predictions(COUNTS), method="random", seed=7))  # no seed in common
    table = compare_all(runs)
    whole = table[table["metric"] == "balanced_accuracy"].set_index(["method", "baseline"])
    assert len(whole) == 6 and "random" not in whole.index
    alone = overall(compare(runs[:9], "bsm", resamples=9).query("method == 'ce'"))
    for name in ("difference", "low", "high", "p"):
        assert whole.loc[("ce", "bsm"), name] == pytest.approx(alone[name])
    turned = whole.loc[("bsm", "ce")]
    assert (turned["low"], turned["verdict"]) == (pytest.approx(-alone["high"]), "lower")
    ordered = sorted(whole["p"].unique())  # Holm, written out
    stepped = np.maximum.accumulate([p * (3 - place) for place, p in enumerate(ordered)])
    assert sorted(whole["p_holm"].unique()) == pytest.approx(sorted(set(np.minimum(stepped, 1))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "toy/96"}, "protocol: expected 'toy/64px/seed0' as in bsm-0, got 'toy/96'; "),
        ({"split_fingerprint": "xyz"}, "split_fingerprint: expected 'abc' as in bsm-0, got 'xyz'"),
        ({"method": "bsm"}, "^ekd-0: expected one run of 'bsm' with seed 0, got also bsm-0; leave"),
        (
            {"seed": 5},
            "^runs: expected a seed in common with 'bsm', got bsm 0 of toy/64px/seed0, ekd 5",
        ),
    ],
)
def test_compare_refuses_runs_that_do_not_belong_together(changes, message):
    other = run_of(name="ekd-0", **({"method": "ekd"} | changes))
    refuses(message, compare, [run_of(), other], "bsm")


def test_compare_needs_its_baseline_another_method_and_one_file_of_the_teacher():
    refuses("runs: expected at least one, got none", compare, [], "bsm")
    refuses("baseline: expected one of bsm, got 'ce'", compare, [run_of()], "ce")
    refuses("runs: expected another method beside 'bsm', got none", compare, [run_of()], "bsm")
    weights = (("ekd", {"sha256": "aa"}), ("fopro", {"sha256": "bb"}))
    runs = [run_of(method=method, teacher=teacher) for method, teacher in weights]
    refuses("weights of the teacher: expected 'aa' as in", compare, runs, "ekd", resamples=20)


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        # All share data and student; seeds of one method share every option.
        ({"method": "bsm"}, {"method": "ekd", "epochs": 40}, "epochs: expected"),
        ({"method": "bsm"}, {"method": "ekd", "teacher": "x", "threads": 2}, ""),
        # Methods with a prompt share teacher and prompt, EKD has no prompt to share.
        ({"method": "fopro"}, {"method": "random", "distill_weight": 9.0}, "distill_weight: exp"),
        ({"method": "fopro"}, {"method": "random", "prompt_form": "radial"}, "prompt_form: expec"),
        # Version 0.1: older than an option, options by their old names, an option that is gone.
        ({"method": "fopro", "explore_steps": 9}, {"method": "random", "prompt_steps": 9}, ""),
        ({"method": "fopro", "explore_steps": 8}, {"method": "random"}, "prompt_steps: expected 8"),
        ({"method": "bsm", "decoder": "draft"}, {"method": "ekd"}, "decoder: expected 'draft'"),
        ({"method": "fopro", "prompt_rings": 12}, {"method": "ekd"}, ""),
        ({"method": "fopro", "prompt_rings": 12}, {"method": "random"}, "prompt_rings: expec"),
    ],
)
def test_compare_refuses_runs_of_another_recipe(one, other, message):
    runs = [run_of(name=name, config={"seed": 0, **c}) for name, c in (("a", one), ("b", other))]
    runs.append(run_of(method="ce"))
    if not message:
        assert len(compare(runs, "ce", resamples=20)) > 0
        return
    refuses(rf"{message}.* as in .*; compare runs of one recipe", compare, runs, "ce", resamples=20)


def test_seeds_of_one_method_have_the_same_own_code_and_the_same_steps_after_training():
    tta = {"how": "tta", "options": {"flips": "both"}, "runs": ["a"]}
    for same, other in (
        ({"refined": tta}, {"refined": tta | {"options": {"flips": "horizontal"}}}),
        ({"refined": tta}, {"refined": tta | {"runs": ["a", "b"]}}),
        ({"loss_sha256": "aa"}, {"loss_sha256": "bb"}),
        ({"distillation_sha256": "aa"}, {}),
    ):
        runs = [run_of(method=m, seed=s) for m in ("bsm", "ce") for s in (0, 1)]
        runs[0].manifest.update(same)
        runs[1].manifest.update(same | {"runs": ["elsewhere"]})
        assert len(compare(runs, "ce", resamples=20)) > 0
        runs[1].manifest.pop(next(iter(same)))
        runs[1].manifest.update(other)
        refuses(f"{next(iter(same))}: expected .* as in", compare, runs, "ce", resamples=20)


def test_scores_have_one_block_per_method_and_never_average_protocols():
    runs = [run_of(predictions(seed=s), seed=s) for s in (0, 1)]
    runs.append(run_of(predictions(seed=2), method="ekd"))
    scores = score_runs(runs, resamples=50)
    assert scores.groupby("method", sort=False)["seeds"].first().to_dict() == {"bsm": 2, "ekd": 1}
    single = runs[2].table(resamples=50)
    own = scores[scores["method"] == "ekd"].drop(columns=["method", "seeds", "folds"])
    pd.testing.assert_frame_equal(own.reset_index(drop=True), single)
    headline = summarise(runs, resamples=50)
    assert headline["method"].tolist() == ["bsm", "ekd"]
    assert headline["seeds"].tolist() == [2, 1] and headline["n"].tolist() == [76, 76]
    assert headline["tail"].iloc[1] == single.query("name == 'tail'")["value"].item()
    assert (headline["balanced_accuracy_low"] < headline["balanced_accuracy"]).all()
    runs = [run_of(predictions((20, 10)), protocol=protocol) for protocol in ("one", "two")]
    headline = summarise(runs, resamples=10)
    assert headline["protocol"].tolist() == ["one", "two"]
    assert headline["medium"].isna().all() and headline["head"].notna().all()


def test_a_student_of_one_answer_is_named_and_its_side_gives_no_interval(capsys):
    """Its macro F1 and calibration error do not vary: neither does a difference know its error."""
    flat = predictions((20, 10))
    names = [name for name in flat if name.startswith("logit_")]
    flat[names] = [5.0, *[0.0] * (len(names) - 1)]
    runs = [run_of(predictions((20, 10))), run_of(flat, method="ekd")]
    table = compare(runs, "bsm", resamples=50).set_index("metric")
    assert "ekd-0 answers every test image with nv, whatever it shows" in capsys.readouterr().err
    assert (table.loc[["macro_f1", "ece"], "interval"] == "none").all()


def test_costs_stand_beside_the_levels_of_their_method():
    card = {"parameters": 2_500_000, "macs": 56_000_000, "megabytes": 10.2}
    runs = [run_of(student=card), run_of(method="ekd")]
    headline = summarise(runs, resamples=10)
    assert headline["macs"].tolist()[0] == 56e6 and headline["macs"].isna().tolist() == [
        False,
        True,
    ]
    shown = level_table(headline)
    titles = ["Parameters (M)", "MACs (M)", "Size (MB)"]
    assert shown[titles].to_numpy().tolist() == [["2.5", "56", "10.2"], ["n/a"] * 3]
    assert not set(titles) & set(level_table(headline[1:]))
    times = {"epoch": [1, 2], "seconds": [700.0, 500.0], "cpu_seconds": [70.0, 50.0]}
    runs[1].__dict__["history"] = pd.DataFrame(times)
    for device, shown in (("cpu (x86_64, 1 threads)", "2"), ("cuda (H200, 1 threads)", "20")):
        runs[1].manifest["device"] = device
        minutes = level_table(summarise(runs, resamples=10))["CPU or GPU (min)"]
        assert minutes.tolist() == ["n/a", shown]


def folds_of(method, *, folds=(1, 2, 3), skill=1.0, shared=False):
    """Two seeds of each fold; lesions and images are named after the fold unless ``shared``."""
    runs = []
    for fold in folds:
        for seed in (0, 1):
            table = predictions(COUNTS, seed=100 * fold + seed, skill=skill, a_group=2)
            for column in () if shared else ("image", "group"):
                table[column] = f"fold{fold}_" + table[column]
            config = {"method": method, "seed": seed, "fold": fold}
            about = {"protocol": f"toy/folds3/seed0/fold{fold}", "split_fingerprint": f"f{fold}"}
            runs.append(run_of(table, config=config, **about))
    return runs


def test_the_numbers_of_others_are_the_mean_of_groups_and_the_median_of_folds():
    runs = [*folds_of("bsm", skill=0.7), *folds_of("ekd", folds=(1, 2))]
    headline = summarise(runs, resamples=10).set_index("method")
    groups_of = headline[["head", "medium", "tail"]].mean(axis=1)
    assert headline["group_mean"].to_dict() == pytest.approx(groups_of.to_dict())
    for method, by_fold in headline["mcc_median"].items():
        found = {}
        for run in runs:
            test = run.predictions
            answers = test.filter(like="logit_").to_numpy().argmax(axis=1)
            if run.method == method:
                found.setdefault(run.protocol, []).append(matthews_corrcoef(test["label"], answers))
        assert by_fold == pytest.approx(np.median([np.mean(own) for own in found.values()]))


def test_scores_and_differences_of_folds_are_the_mean_of_the_folds_own():
    ours, theirs = folds_of("ekd", skill=1.4), folds_of("bsm")
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


def test_folds_that_test_an_image_twice_stay_apart_and_groups_follow_most_folds():
    runs = [run for m in ("bsm", "ekd") for run in folds_of(m, folds=(1, 2), shared=True)]
    assert [len(members) for members in group_families(runs)] == [4, 4]
    table = score_runs(runs, resamples=20)
    assert set(table["protocol"]) == {"toy/folds3/seed0/fold1", "toy/folds3/seed0/fold2"}
    refuses("share no tested lesion, patient or image", compare, runs, "bsm", resamples=20)
    ours, theirs = {"mel": "head", "df": "tail"}, {"mel": "medium", "df": "tail"}
    assert merge_groups([ours, ours, theirs]) == ours
    assert merge_groups([ours, theirs]) == theirs


def test_every_run_that_a_difference_does_not_rest_on_is_named(tmp_path):
    states = {("bsm", 0): "done", ("bsm", 1): "done", ("bsm", 2): "done", ("ekd", 0): "done",
              ("ekd", 1): "failed", ("ekd", 2): "done", ("fopro", 1): "done"}  # fmt: skip
    for (method, seed), state in states.items():
        folder = tmp_path / f"{method}-{seed}"
        write_run(folder, predictions(seed=seed), method=method, seed=seed, state=state)
    (tmp_path / "ekd-2" / "predictions.parquet").unlink()
    lines = dropped_lines(load_runs(tmp_path, unfinished=True), "bsm")
    assert [line.replace(f"{tmp_path.as_posix()}/", "") for line in lines] == [
        "used against ekd alone: bsm-0 (bsm, seed 0): no run of fopro has its seed and fold",
        "used against fopro alone: bsm-1 (bsm, seed 1): no run of ekd has its seed and fold",
        "left out: bsm-2 (bsm, seed 2): no run of ekd, fopro has its seed and fold",
        "left out: ekd-1 (ekd, seed 1): not finished: failed",
        "left out: ekd-2 (ekd, seed 2): no predictions.parquet",
    ]


def with_curve(run, curve):
    run.__dict__["history"] = pd.DataFrame(
        {"epoch": range(len(curve)), "val_balanced_accuracy": curve}
    )
    return run


RISES = (
    "validation balanced accuracy still rises: "
    "the last 2 epochs in the mean 11 points above those before"
)


@pytest.mark.parametrize(
    ("epochs", "curve", "skill", "reason"),
    [
        (20, [*np.linspace(0.2, 0.6, 16), 0.60, 0.61, 0.61, 0.62], 3, ""),
        (2, [0.2, 0.5], 3, "2 epochs, fewer than 5"),
        (8, np.linspace(0.2, 0.6, 8), 3, RISES),
        (8, [*np.linspace(0.2, 0.6, 4), *[0.6, 0.6], *[0.625, 0.625]], 3, ""),  # 2.5 points
        (8, [0.25] * 8, -0.2, "balanced accuracy as by chance"),
    ],
)
def test_undertrained_runs_get_no_verdict_and_the_reason_is_said(epochs, curve, skill, reason):
    """Against a method that is trained; both ways round, and over all pairs."""
    config = {"seed": 0, "epochs": epochs}
    tables = [
        predictions((90, 80, 70, 60), seed=seed, skill=own) for seed, own in ((1, 9), (2, skill))
    ]
    done, run = (
        run_of(t, config={"method": m} | config)
        for t, m in zip(tables, ("bsm", "ekd"), strict=True)
    )
    runs = [with_curve(done, [0.5] * 8), with_curve(run, curve)]
    assert undertrained(runs).get("ekd", "") == reason
    if "rises" in reason:  # of which what was refined from it is no better
        about = {"method": "ekd+crt", "runs": [f"elsewhere/{run.name}"]}
        refined = run_of(tables[1], name="crt", config={"method": "ekd"} | config)
        refined.manifest["refined"] = about
        assert undertrained([run, refined])["ekd+crt"] == reason
    for table in (
        compare(runs, "bsm", resamples=20),
        compare(runs, "ekd", resamples=20),
        compare_all(runs),
    ):
        row = overall(table)
        assert row["low"] > 0 or row["high"] < 0
        assert row["verdict"].startswith("undertrained: ") == np.isnan(row["p"]) == bool(reason)


def test_a_run_without_a_curve_is_judged_by_its_epochs_and_level():
    assert undertrained([run_of(predictions(skill=3))]) == {}
    refined = {"config": {"method": "ce", "seed": 0, "epochs": 3}, "refined": {"method": "ce+crt"}}
    assert undertrained([run_of(predictions(skill=3), **refined)]) == {
        "ce+crt": "3 epochs, fewer than 5"
    }


def test_methods_of_unequal_seeds_and_folds_are_compared_on_what_they_share(tmp_path):
    """As while a sweep runs; a method without a partner is left out and named."""
    seeds = {"ce": (0,), "bsm": (0, 2), "ekd": (0, 2), "bsm+kd": (2,)}
    options = {"bsm+kd": {"method": "bsm", "distillation": "kd"}}
    runs = [
        run_of(
            predictions((20, 15, 12, 10), seed=9 * fold + seed, skill=3).assign(
                image=lambda t, f=fold: f"{f}" + t["image"],
                group=lambda t, f=fold: f"{f}" + t["group"],
            ),
            config={"method": method, "seed": seed, "fold": fold} | options.get(method, {}),
            protocol=f"toy/folds3/seed0/fold{fold}", split_fingerprint=f"f{fold}",
        )
        for method, own in seeds.items() for fold in (1, 2, 3) for seed in own
        if (method, fold) != ("ekd", 3)
    ]  # fmt: skip
    refined = [
        run_of(run.predictions, config=run.config, protocol=run.protocol,
               split_fingerprint=run.manifest["split_fingerprint"], refined={"method": "ce+crt"})
        for run in runs if run.method == "ce"
    ]  # fmt: skip
    runs += refined
    table = compare(runs, "bsm", resamples=20)
    found = table.groupby("method")[["seeds", "folds"]].first().apply(tuple, axis=1).to_dict()
    assert found == {"ce": (1, 3), "ekd": (2, 2), "bsm+kd": (1, 3), "ce+crt": (1, 3)}
    table = compare(runs, "ce", resamples=20)
    assert set(table["method"]) == {"bsm", "ekd", "ce+crt"}
    lines = dropped_lines(runs, "ce")
    assert sum("left out: " in line and "(bsm+kd, seed 2)" in line for line in lines) == 3
    pairs = compare_all(runs).groupby(["method", "baseline"]).size()
    assert ("bsm+kd", "bsm") in pairs and ("bsm+kd", "ce") not in pairs
    apart = [run for run in runs if run.method in ("ce", "bsm+kd")]
    refuses("expected a seed in common with 'ce', got ce 0 of toy", compare, apart, "ce")


@pytest.fixture(scope="module")
def taught():
    found = []
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
        found.append(run_of(table, name=name, config={"seed": 0, "student": "small", **config}))
    return found


def test_each_teacher_and_student_is_compared_as_if_alone_and_p_corrected_over_them(taught):
    found = compare_teachers(taught, [("ekd", "bsm"), ("fopro", "ekd")], resamples=200)
    small = found[found["student"] == "small"]
    assert list(dict.fromkeys(small["teacher"])) == ["builtin, 32 px", "resnet18"]
    part = small[(small["teacher"] == "resnet18") & (small["method"] == "ekd")]
    expected = compare([taught[0], taught[3]], "bsm", resamples=200)
    own = part[expected.columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, expected, check_dtype=False)
    assert set(found.loc[found["student"] == "resnet18", "teacher"]) == {"builtin"}
    refuses(r"expected both methods of a pair", compare_teachers, taught, [("random", "ekd")])
    one = found[(found["method"] == "ekd") & (found["student"] == "small")]
    one = one[one["metric"] == "balanced_accuracy"]
    low, high = sorted(one["p"])
    assert sorted(one["p_holm"]) == pytest.approx(sorted([min(1, 2 * low), max(2 * low, high)]))
    found = summarise_teachers(taught[:4], resamples=20)
    names = ["none bsm", "builtin, 32 px ekd", "builtin, 32 px fopro", "resnet18 ekd"]
    assert (found["teacher"] + " " + found["method"]).tolist() == names
    own = summarise([taught[1]], resamples=20)
    assert found["tail"][1] == own["tail"][0] and found["tail_low"][1] == own["tail_low"][0]
