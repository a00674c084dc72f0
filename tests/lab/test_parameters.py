import json

import pytest

from fopro_lab.errors import InputError
from fopro_lab.reports.plan import declared_parameters, fit_value, nearest, read_cells


def test_declared_parameters_reads_what_papermill_overlooks(house):
    path = house.notebook(
        "a",
        'size: int | None = None\ncolour: str = "#ff0000"  # as in a page\nrate = 1e-3\n'
        'names: list[str] = ["a", "b"]\noffset: int = -1',
    )
    assert declared_parameters(path) == {
        "size": None,
        "colour": "#ff0000",
        "rate": 1e-3,
        "names": ["a", "b"],
        "offset": -1,
    }


def test_declared_parameters_of_an_untagged_notebook_are_none(house):
    assert declared_parameters(house.notebook("a", "", "x = 1")) == {}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import os", "expected lines 'name: type = literal', got 'import os'"),
        ("x: int", "expected lines 'name: type = literal', got 'x: int'"),
        ("x = y = 1", "got 'x = y = 1'"),
        ("x = 1 + len('a')", "move it to the next cell"),
        ("x = (", "parameters cell: line 1 is no Python"),
    ],
)
def test_declared_parameters_refuses_other_code(house, source, message):
    with pytest.raises(InputError) as caught:
        declared_parameters(house.notebook("a", source))
    assert message in str(caught.value) and "a.ipynb" in str(caught.value)


def test_declared_parameters_refuses_two_tagged_cells(tmp_path):
    cell = {"source": "x = 1", "metadata": {"tags": ["parameters"]}}
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": [cell, cell]}))
    with pytest.raises(InputError, match="expected one cell tagged 'parameters', got 2"):
        declared_parameters(path)


@pytest.mark.parametrize("text", ["", "[]", '{"worksheets": []}', '{"cells": [1]}', "\x00"])
def test_read_cells_refuses_what_is_no_notebook(tmp_path, text):
    path = tmp_path / "a.ipynb"
    path.write_text(text)
    with pytest.raises(InputError, match="expected a notebook of format 4, got something else"):
        read_cells(path)


@pytest.mark.parametrize(
    ("value", "default", "fitted"),
    [
        (3, 1, 3),
        (3, 0.5, 3.0),
        ("1e-3", 0.5, 1e-3),
        ("x", "y", "x"),
        (True, False, True),
        ([1], [0], [1]),
        ([1, 2], (0, 1), [1, 2]),
        ({"a": 1}, {}, {"a": 1}),
        ("anything", None, "anything"),
    ],
)
def test_fit_value_accepts(value, default, fitted):
    result = fit_value(value, default, name="n")
    assert result == fitted and type(result) is type(fitted)


@pytest.mark.parametrize(
    ("value", "default", "message"),
    [
        ("3", 1, "n: expected a whole number like 1, got '3'"),
        (2.5, 1, "n: expected a whole number like 1, got 2.5"),
        (True, 1, "n: expected a whole number like 1, got True"),
        (1, True, "n: expected true or false like True, got 1"),
        (True, 0.5, "n: expected a number like 0.5, got True"),
        ("fast", 0.5, "n: expected a number like 0.5, got 'fast'"),
        (2019, "phantom", "n: expected a text like 'phantom', got 2019; quote it: '\"2019\"'"),
        ("a", ["a"], "n: expected a list like ['a'], got 'a'"),
    ],
)
def test_fit_value_refuses(value, default, message):
    with pytest.raises(InputError) as caught:
        fit_value(value, default, name="n")
    assert str(caught.value) == message


def test_nearest_names_all_when_none_is_near():
    assert nearest("zzz", []) == "known: none"
