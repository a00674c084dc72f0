import pytest

from fopro_lab.errors import InputError
from fopro_lab.reports.plan import find_notebook, read_plan


@pytest.mark.parametrize("text", ["title: x", "title: x\nnotebooks: {}", "title: [", "- x"])
def test_read_plan_refuses_a_plan_without_notebooks(tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"plan\.yaml: "):
        read_plan(path)


def test_find_notebook_looks_beside_the_plan_first(house):
    path = house.notebook("a", "")
    plan = house.plan({"a": {"notebook": "a"}})
    assert find_notebook("a", plan=plan) == path
    assert find_notebook(str(path), plan=plan) == path
    assert find_notebook("../../notebooks/a.ipynb", plan=plan).samefile(path)


@pytest.mark.parametrize("asked", ["demmo.yaml", "plans/dem.yaml", "demo"])
def test_a_misspelt_plan_is_told_the_nearest(tmp_path, monkeypatch, asked):
    folder = tmp_path / "plans"
    folder.mkdir()
    for name in ("demo", "own", "zebra"):
        (folder / f"{name}.yaml").write_text("title: a")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"^{asked}: no such file; did you mean 'plans/demo.yaml'"):
        read_plan(asked)
