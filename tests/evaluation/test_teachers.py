import numpy as np
import pandas as pd
import pytest

from fopro_lab.errors import InputError
from fopro_lab.evaluation import Run, compare, compare_teachers, summarise, summarise_teachers
from fopro_lab.evaluation.bootstrap import holm
from tests.evaluation.toy_runs import predictions, write_run


def run_of(folder, name, *, skill, **config):
    number = sum(map(ord, name))
    config = {"method": "bsm", "seed": 0, "student": "small", **config}
    return Run.read(write_run(folder / name, predictions(seed=number, skill=skill), config=config))


@pytest.fixture
def runs(tmp_path):
    found = [run_of(tmp_path, "alone", skill=1.0)]
    for teacher, skill in (("builtin", 1.5), ("timm:resnet18", 0.8)):
        for method in ("ekd", "fopro"):
            name = f"{method}-{teacher.replace(':', '')}"
            more = 0.5 * (method == "fopro")
            settings = {"method": method, "teacher": teacher, "teacher_size": 32}
            found.append(run_of(tmp_path, name, skill=skill + more, **settings))
    return found


def test_each_teacher_is_compared_as_if_it_were_alone(runs):
    found = compare_teachers(runs, [("ekd", "bsm"), ("fopro", "ekd")], resamples=50)
    assert list(dict.fromkeys(found["teacher"])) == ["builtin, 32 px", "resnet18, 32 px"]
    for teacher, own in (("builtin, 32 px", runs[1:3]), ("resnet18, 32 px", runs[3:5])):
        part = found[(found["teacher"] == teacher) & (found["method"] == "ekd")]
        expected = compare([runs[0], own[0]], "bsm", resamples=50)
        pd.testing.assert_frame_equal(
            part[expected.columns].reset_index(drop=True), expected, check_dtype=False
        )
    assert set(zip(found["method"], found["baseline"], strict=True)) == {
        ("ekd", "bsm"),
        ("fopro", "ekd"),
    }


def test_p_values_are_corrected_over_the_teachers_of_one_pair_and_number(runs):
    found = compare_teachers(runs, [("ekd", "bsm"), ("fopro", "ekd")], resamples=200)
    one = found[(found["method"] == "ekd") & (found["metric"] == "balanced_accuracy")]
    low, high = sorted(one["p"])
    assert sorted(one["p_holm"]) == pytest.approx(sorted([min(1, 2 * low), max(2 * low, high)]))


def test_holm_equals_its_definition():
    values = [0.2, 0.001, np.nan, 0.013, 0.012]
    known = sorted(value for value in values if value == value)
    expected = {}
    for place, value in enumerate(known):
        step = min(1.0, value * (len(known) - place))
        expected[value] = max([step, *expected.values()])
    np.testing.assert_allclose(
        holm(np.array(values)), [expected.get(value, np.nan) for value in values]
    )


def test_students_are_not_mixed(tmp_path, runs):
    large = [
        run_of(tmp_path, "large", skill=1.0, student="resnet18"),
        run_of(tmp_path, "large-ekd", skill=1.4, student="resnet18", method="ekd"),
    ]
    found = compare_teachers([*runs, *large], [("ekd", "bsm")], resamples=20)
    assert found.groupby("student")["teacher"].nunique().to_dict() == {"small": 2, "resnet18": 1}
    assert set(found[found["student"] == "resnet18"]["teacher"]) == {"builtin"}


def test_without_a_pair_there_is_one_clear_line(runs):
    with pytest.raises(InputError, match=r"expected both methods of a pair \(random against ekd\)"):
        compare_teachers(runs, [("random", "ekd")])


def test_levels_have_a_row_for_each_teacher_and_method(runs):
    found = summarise_teachers(runs, resamples=20)
    assert found[["teacher", "method"]].values.tolist() == [
        ["none", "bsm"],
        *(["builtin, 32 px", method] for method in ("ekd", "fopro")),
        *(["resnet18, 32 px", method] for method in ("ekd", "fopro")),
    ]
    own = summarise([runs[1]], resamples=20)
    assert found["tail"][1] == own["tail"][0] and found["tail_low"][1] == own["tail_low"][0]
