from fopro_lab.evaluation import Run, compare, dropped_lines, load_runs, pairings
from tests.evaluation.toy_runs import predictions, write_run


def runs_of(folder, *asked):
    for method, seed, state in asked:
        table = predictions(seed=seed + (5 if method == "ekd" else 0))
        write_run(folder / f"{method}-{seed}", table, method=method, seed=seed, state=state)
    return load_runs(folder, unfinished=True)


def test_pairings_name_every_run_that_a_difference_does_not_rest_on(tmp_path):
    runs = runs_of(
        tmp_path,
        ("bsm", 0, "done"),
        ("bsm", 1, "done"),
        ("ekd", 0, "done"),
        ("ekd", 2, "done"),
        ("ekd", 1, "failed"),
    )
    table = pairings(runs, "bsm").set_index(["method", "seed"])
    assert table["paired"].to_dict() == {
        ("bsm", 0): True,
        ("bsm", 1): False,
        ("ekd", 0): True,
        ("ekd", 1): False,
        ("ekd", 2): False,
    }
    assert table.loc[("ekd", 1), "reason"] == "not finished: failed"
    assert table.loc[("ekd", 2), "reason"] == "no run of bsm has its seed and fold"
    told = dropped_lines(pairings(runs, "bsm"))
    assert len(told) == 3 and all(line.startswith("left out: ") for line in told)
    differences = compare([run for run in runs if run.state == "done"], "bsm")
    assert set(differences["seeds"]) == {int(table["paired"].sum()) // 2}


def test_a_baseline_run_that_serves_some_methods_alone_is_told(tmp_path):
    runs = runs_of(
        tmp_path, ("bsm", 0, "done"), ("bsm", 1, "done"), ("ekd", 0, "done"), ("ekd", 1, "done"),
        ("fopro", 0, "done"),
    )  # fmt: skip
    [line] = dropped_lines(pairings(runs, "bsm"))
    assert "bsm-1" in line and "used against ekd alone" in line and "no run of fopro" in line


def test_nothing_is_told_where_all_runs_are_paired(tmp_path):
    runs = runs_of(tmp_path, ("bsm", 0, "done"), ("ekd", 0, "done"))
    assert dropped_lines(pairings(runs, "bsm")) == []
    assert all(isinstance(run, Run) for run in runs)
