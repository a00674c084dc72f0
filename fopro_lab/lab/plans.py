"""A plan: which notebooks, with which parameters, after which others."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import Field

from fopro_lab.config import Config, parse_settings, read_yaml
from fopro_lab.errors import InputError
from fopro_lab.lab.parameters import declared_parameters, fit_value, nearest

_FOLDERS_OF_A_REPORT = ("notebooks", "pages", "runs")


class PlanEntry(Config):
    """One notebook of a plan; a matrix makes several nodes of it."""

    notebook: str = Field(min_length=1, description="name in notebooks/, or a path")
    matrix: dict[str, list[Any]] = Field({}, description="name to values; one node a combination")
    parameters: dict[str, Any] = Field({}, description="values for this notebook alone")
    after: list[str] = Field([], description="entries or nodes that must be done before")


class Plan(Config):
    """A directed graph of notebooks and their parameters, as written in YAML."""

    title: str = Field(min_length=1, description="headline of the index page")
    about: str = Field("", description="one paragraph: what the report asks")
    defaults: dict[str, Any] = Field({}, description="for every notebook that declares the name")
    notebooks: dict[str, PlanEntry] = Field(min_length=1, description="name to entry")


@dataclass(frozen=True)
class Node:
    """One notebook to execute, with every value it shall get.

    ``parameters`` are the plan's and the caller's choices; ``places`` are the folders that the
    report assigns (``out_dir``, ``runs_dir``), which say nothing about the result.
    """

    name: str
    entry: str
    notebook: Path
    parameters: dict[str, Any]
    places: dict[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()


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


def _check_keys(path: Path | str, content: Mapping, model: type[Config], where: str) -> None:
    for key in content:
        if key not in model.model_fields:
            hint = nearest(str(key), list(model.model_fields))
            raise InputError(f"{path}: {where}{key}: not a key of a plan; {hint}")


def plan_nodes(path: Path | str, *, out: Path | str, settings: Sequence[str] = ()) -> list[Node]:
    """Expand a plan into nodes, in an order in which they can be executed.

    A setting replaces the plan's value in every notebook that declares the name; for an axis of a
    matrix it replaces the axis, and may be a list.

    Args:
        path: The plan's YAML file.
        out: Folder of the report; a node's ``out_dir`` is ``out/<node>``.
        settings: Texts ``name=value``.

    Returns:
        The nodes, each after all that it waits for.

    Raises:
        InputError: If a notebook is missing, a name is declared nowhere, a value is of another
            type than the declared default, an ``after`` is unknown, or the graph has a cycle.

    Example:
        >>> plan_nodes("nowhere.yaml", out="reports/nowhere")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.yaml: no such file
    """
    plan = read_plan(path)
    values = parse_settings(settings)
    notebooks = {n: find_notebook(e.notebook, plan=path) for n, e in plan.notebooks.items()}
    declared = {name: declared_parameters(file) for name, file in notebooks.items()}
    _check_declared(path, plan, values, declared)
    partial = {
        text.partition("=")[0].split(".")[0] for text in settings if "." in text.split("=")[0]
    }

    nodes: list[Node] = []
    for name, entry in plan.notebooks.items():
        axes = dict(entry.matrix)
        for key in axes.keys() & values.keys():
            axes[key] = values[key] if isinstance(values[key], list) else [values[key]]
        for axis, choices in axes.items():
            if not choices:
                raise InputError(f"{path}: {name}: matrix: {axis}: expected one value or more")
        for choice in itertools.product(*axes.values()):
            given = {**plan.defaults, **entry.parameters}
            for key in declared[name].keys() & values.keys():
                old = given.get(key, declared[name][key])
                both = key in partial and isinstance(old, dict)
                given[key] = {**old, **values[key]} if both else values[key]
            given |= dict(zip(axes, choice, strict=True))
            node = "-".join([name, *(re.sub(r"[^\w.]+", "_", str(part)) for part in choice)])
            nodes.append(
                Node(
                    name=node,
                    entry=name,
                    notebook=notebooks[name],
                    parameters={
                        key: fit_value(given[key], default, name=f"{node}: {key}")
                        for key, default in declared[name].items()
                        if key in given
                    },
                    places=_places(node, declared[name], given, Path(out)),
                    after=tuple(entry.after),
                )
            )
    return _in_order(path, nodes)


def _places(node: str, declared: Mapping, given: Mapping, out: Path) -> dict[str, str]:
    """Folders for the reserved names; short ones, so that pages show no path of this machine."""
    root = out.resolve()
    root = root.relative_to(Path.cwd()) if root.is_relative_to(Path.cwd()) else root
    places = {"out_dir": root / node, "runs_dir": root / "runs"}
    return {k: str(v) for k, v in places.items() if k in declared and k not in given}


def find_notebook(name: str, *, plan: Path | str) -> Path:
    """Find a plan's notebook by name or path.

    Args:
        name: A name such as ``04_train``, looked for in ``notebooks/`` of the plan's repository
            (two folders up) and of the current folder; or a path, seen from the plan or from here.
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
    homes += [Path("notebooks").absolute()]
    for folder in [*homes, Path(plan).parent, Path()]:
        if (folder / file).is_file():
            return folder / file
    known = sorted({path.stem for folder in homes for path in folder.glob("*.ipynb")})
    tried = " or ".join(dict.fromkeys(str(folder) for folder in homes))
    raise InputError(f"{name}: no such notebook in {tried}; {nearest(name, known)}")


def _is_deep(plan: Path | str) -> bool:
    return len(Path(plan).absolute().parents) > 2


def _check_declared(
    path: Path | str, plan: Plan, values: Mapping[str, Any], declared: Mapping[str, Mapping]
) -> None:
    """Refuse a name that no notebook, or not the one it is meant for, declares."""
    everywhere = {key: None for names in declared.values() for key in names}
    for name, entry in plan.notebooks.items():
        for key in [*entry.parameters, *entry.matrix]:
            if key not in declared[name]:
                hint = nearest(key, declared[name])
                raise InputError(f"{path}: {name}: {key}: not declared by {entry.notebook}; {hint}")
        if "out_dir" in entry.parameters or "out_dir" in entry.matrix:
            raise InputError(f"{path}: {name}: out_dir: set by the report itself; use --out")
    for where, given in ((f"{path}: defaults", plan.defaults), ("--set", values)):
        for key in given:
            if key == "out_dir":
                raise InputError(f"{where}: out_dir: set by the report itself; use --out")
            if key not in everywhere:
                hint = nearest(key, everywhere)
                raise InputError(f"{where}: {key}: declared by no notebook of the plan; {hint}")


def _in_order(path: Path | str, nodes: list[Node]) -> list[Node]:
    """Resolve every ``after`` to node names and sort; first come first where the graph is free."""
    names = [node.name for node in nodes]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: {name}: two nodes have this name; rename an entry")
        if name in _FOLDERS_OF_A_REPORT:
            raise InputError(f"{path}: {name}: the report keeps a folder of this name; rename it")
    groups = {name: [name] for name in names}
    for node in nodes:
        if node.name != node.entry:
            groups.setdefault(node.entry, []).append(node.name)
    graph: dict[str, tuple[str, ...]] = {}
    for node in nodes:
        for before in node.after:
            if before not in groups:
                hint = nearest(before, list(groups))
                raise InputError(f"{path}: {node.entry}: after: no entry '{before}'; {hint}")
        graph[node.name] = tuple(name for before in node.after for name in groups[before])
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise InputError(f"{path}: notebooks wait for each other: {circle}") from None
    by_name = {node.name: node for node in nodes}
    return [_with_after(by_name[name], graph[name]) for name in order]


def _with_after(node: Node, after: tuple[str, ...]) -> Node:
    return Node(node.name, node.entry, node.notebook, node.parameters, node.places, after)
