"""A plan as it is written: which notebooks, with which parameters, after which others."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import Field

from fopro_lab.config import Config
from fopro_lab.errors import InputError
from fopro_lab.lab.parameters import nearest
from fopro_lab.settings import read_yaml

CHECKOUT = Path(__file__).resolve().parents[2]  # of the package, with its notebooks and plans


class PlanEntry(Config):
    """One notebook of a plan; a matrix makes several nodes of it."""

    notebook: str = Field(min_length=1, description="name in notebooks/, or a path")
    matrix: dict[str, list[Any]] = Field({}, description="name to values; one node a combination")
    parameters: dict[str, Any] = Field({}, description="values for this notebook alone")
    after: list[str] = Field([], description="entries or nodes that must be done before")
    when: dict[str, Any] = Field({}, description="condition; where it does not hold, left out")
    limit: str = Field("", description="longest time, such as 30 min; empty is the plan's")


class Plan(Config):
    """A directed graph of notebooks and their parameters, as written in YAML."""

    title: str = Field(min_length=1, description="headline of the index page")
    about: str = Field("", description="one paragraph: what the report asks")
    defaults: dict[str, Any] = Field({}, description="for every notebook that declares the name")
    limit: str = Field("", description="longest time of each notebook, such as 2 h; empty is none")
    notebooks: dict[str, PlanEntry] = Field(min_length=1, description="name to entry")


def read_plan(path: Path | str) -> Plan:
    """Read and validate a plan.

    Args:
        path: YAML file.

    Returns:
        The plan; its notebooks are not looked at yet.

    Raises:
        InputError: If the file is missing or a key is misspelt, missing or of a wrong type.

    Example:
        >>> read_plan("nowhere.yaml")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.yaml: no such file
    """
    if not Path(path).exists() and (plan := _nearest_plan(Path(path))):
        raise InputError(f"{path}: no such file; did you mean '{plan}'?")
    content = read_yaml(path)
    _check_keys(path, content, Plan, "")
    entries = content.get("notebooks")
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
            raise InputError(
                f"{path}: notebooks: expected names of letters and digits, got {name!r}"
            )
        if isinstance(entry, dict):
            _check_keys(path, entry, PlanEntry, f"notebooks.{name}.")
    try:
        return Plan.from_mapping(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _nearest_plan(path: Path) -> Path | None:
    """Find a plan of nearly that name where it was looked for, and where plans are kept below."""
    folders = (path.parent, path.parent / "plans", path.parent / "reports" / "plans")
    known = {plan.stem: plan for folder in folders for plan in sorted(folder.glob("*.yaml"))}
    match = get_close_matches(path.stem, known, n=1)
    return known[match[0]] if match else None


def _check_keys(path: Path | str, content: Mapping, model: type[Config], where: str) -> None:
    for key in content:
        if key not in model.model_fields:
            hint = nearest(str(key), list(model.model_fields))
            raise InputError(f"{path}: {where}{key}: not a key of a plan; {hint}")


def find_notebook(name: str, *, plan: Path | str) -> Path:
    """Find a plan's notebook by name or path.

    Args:
        name: A name such as ``04_train``, looked for in ``notebooks/`` of the plan's repository
            (two folders up), of the current folder and of the package's checkout; or a path, seen
            from the plan or from here.
        plan: The plan's file.

    Returns:
        Path of the ``.ipynb`` file.

    Raises:
        InputError: If there is none; the message names the nearest.

    Example:
        >>> find_notebook("zzz", plan="/nowhere/reports/plans/demo.yaml")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: zzz: no such notebook in /nowhere/notebooks or ...
    """
    file = Path(name if name.endswith(".ipynb") else f"{name}.ipynb")
    homes = [Path(plan).absolute().parents[2] / "notebooks"] if _is_deep(plan) else []
    homes += [Path("notebooks").absolute(), CHECKOUT / "notebooks"]
    for folder in [*homes, Path(plan).parent, Path()]:
        if (folder / file).is_file():
            return folder / file
    known = sorted({path.stem for folder in homes for path in folder.glob("*.ipynb")})
    tried = " or ".join(dict.fromkeys(str(folder) for folder in homes))
    raise InputError(f"{name}: no such notebook in {tried}; {nearest(name, known)}")


def _is_deep(plan: Path | str) -> bool:
    return len(Path(plan).absolute().parents) > 2
