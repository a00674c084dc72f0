"""A plan's nodes: every notebook to execute, with every value it shall get, in order."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from fopro_lab.config import ProbeConfig, TrainConfig
from fopro_lab.errors import InputError
from fopro_lab.lab.conditions import unmet
from fopro_lab.lab.expanding import check_declared, combinations, read_overrides
from fopro_lab.lab.limits import limit_seconds
from fopro_lab.lab.parameters import declared_parameters, fit_value, nearest
from fopro_lab.lab.plans import find_notebook, read_plan
from fopro_lab.lab.states import files_states, package_hash

_FOLDERS_OF_A_REPORT = ("notebooks", "pages", "runs", "tables")


@dataclass(frozen=True)
class Node:
    """One notebook to execute.

    ``parameters`` are the plan's and the caller's choices. ``places`` are what the report assigns
    where a notebook declares the name: ``out_dir``, its own folder for figures and tables;
    ``run_dir``, the folder of the training run that it makes; ``run_dirs``, those of the notebooks
    that it waits for. They say nothing about the result. ``limit`` is its longest time in seconds,
    0 for none. ``left_out`` says why it is not executed at all; empty if it is.
    """

    name: str
    entry: str
    notebook: Path
    parameters: dict[str, Any]
    places: dict[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    limit: float = 0.0
    left_out: str = ""


def plan_nodes(
    path: Path | str,
    *,
    out: Path | str,
    settings: Sequence[str] = (),
    files: Sequence[Path | str] = (),
    inputs: bool = True,
) -> list[Node]:
    """Expand a plan into nodes, in an order in which they can be executed.

    A setting replaces the plan's value in every notebook that declares the name; for an axis of a
    matrix it replaces the axis, and may be a list. ``a.b=1`` changes one entry of a mapping ``a``.
    A pin file does the same, beneath the settings.

    A node whose condition does not hold, now, before anything runs, is left out. What waits for it
    goes on without it and gets no run folder of it; a node that waits for left-out ones alone is
    left out as well.

    Args:
        path: The plan's YAML file.
        out: Folder of the report.
        settings: Texts ``name=value``.
        files: Pin files, YAML mappings of names and values; the last one wins.
        inputs: Whether data and weights must be there; a dry run tells itself which are not.

    Returns:
        The nodes, each after all that it waits for.

    Raises:
        InputError: If a notebook is missing, a name is declared nowhere, a value is of another
            type than the declared default or out of a knob's range, a data set or a file of
            weights is not there, an ``after`` is unknown, or the graph has a cycle.

    Example:
        >>> plan_nodes("nowhere.yaml", out="reports/nowhere")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.yaml: no such file
    """
    plan, overrides = read_plan(path), read_overrides(settings, files)
    notebooks = {n: find_notebook(e.notebook, plan=path) for n, e in plan.notebooks.items()}
    declared = {name: declared_parameters(file) for name, file in notebooks.items()}
    check_declared(path, plan, overrides, declared)
    axes = {axis for entry in plan.notebooks.values() for axis in entry.matrix}
    nodes: list[Node] = []
    states: dict[str, str] = {}
    for entry_name, entry in plan.notebooks.items():
        defaults = declared[entry_name]
        limit = limit_seconds(entry.limit or plan.limit, name=f"{path}: {entry_name}: limit")
        for name, choice in combinations(f"{path}: {entry_name}", entry_name, entry, overrides):
            given = {**plan.defaults, **entry.parameters}
            given = overrides.on(given, defaults=defaults, axes=axes) | choice
            parameters = {
                key: fit_value(given[key], default, name=f"{name}: {key}")
                for key, default in defaults.items()
                if key in given
            }
            reason = unmet(entry.when, {**defaults, **parameters})
            _check_knobs(name, {**defaults, **parameters}, inputs=inputs and not reason)
            places = _places(name, defaults, parameters, Path(out), states)
            book, after = notebooks[entry_name], tuple(entry.after)
            nodes.append(Node(name, entry_name, book, parameters, places, after, limit, reason))
    nodes = _without_left_out(_in_order(path, nodes))
    return [_with_run_dirs(node, nodes, declared[node.entry]) for node in nodes]


def chosen_names(nodes: Sequence[Node], only: Sequence[str], *, option: str = "--only") -> set[str]:
    """Return the names of the nodes that are asked for, by their own name or their entry's.

    Raises:
        InputError: If there is no such node or entry.

    Example:
        >>> nodes = [Node("train-0", "train", Path("a"), {}), Node("tail", "tail", Path("b"), {})]
        >>> sorted(chosen_names(nodes, ["train"]))
        ['train-0']
    """
    known = {word for node in nodes for word in (node.name, node.entry)}
    for word in only:
        if word not in known:
            raise InputError(
                f"{option}: no notebook '{word}' in the plan; {nearest(word, list(known))}"
            )
    return {node.name for node in nodes if {node.name, node.entry} & set(only)}


def _without_left_out(nodes: Sequence[Node]) -> list[Node]:
    """Let no node wait for one that is left out; what waits for such alone is left out too."""
    kept: dict[str, Node] = {}
    for node in nodes:
        after = tuple(name for name in node.after if not kept[name].left_out)
        reason = node.left_out
        if node.after and not after and not reason:
            reason = f"all that it waits for is left out ({', '.join(node.after)})"
        kept[node.name] = replace(node, after=after, left_out=reason)
    return list(kept.values())


def _check_knobs(name: str, values: Mapping[str, Any], *, inputs: bool) -> None:
    """Refuse a wrong value or a missing file now, not after the notebooks before have run."""
    try:
        config = TrainConfig.from_parameters(values)
        ProbeConfig.from_parameters(values)
        if inputs and config.dataset != "phantom" and not Path(config.dataset).exists():
            from fopro_lab.data.catalog import check_place  # pandas comes with it

            check_place(config.dataset)
        if inputs and config.weights and not Path(config.weights).expanduser().is_file():
            raise InputError(f"weights: {config.weights}: no such file")
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _places(
    name: str, defaults: Mapping, parameters: Mapping, out: Path, files: dict[str, str]
) -> dict[str, Any]:
    """Assign folders; as seen from here, so that pages show no path of this machine.

    The run folder bears a hash of its parameters, the package's source and the files that are
    read: a run is found again by the same ones, and one with others is never in its way.
    """
    root = out.resolve()
    root = root.relative_to(Path.cwd()) if root.is_relative_to(Path.cwd()) else root
    chosen = {**defaults, **parameters}
    depends = [chosen, package_hash(), files_states(chosen, known=files)]
    text = json.dumps(depends, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    places = {"out_dir": root / name, "run_dir": root / "runs" / f"{name}-{digest}"}
    return {k: str(v) for k, v in places.items() if k in defaults and k not in parameters}


def _with_run_dirs(node: Node, nodes: Sequence[Node], defaults: Mapping) -> Node:
    """Tell a node the run folders of those that it waits for."""
    before = [n for n in nodes if n.name in node.after]
    run_dirs = [{**n.places, **n.parameters}.get("run_dir") for n in before]
    run_dirs = [run_dir for run_dir in run_dirs if run_dir]
    if "run_dirs" not in defaults or "run_dirs" in node.parameters or not run_dirs:
        return node
    return replace(node, places={**node.places, "run_dirs": run_dirs})


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
    return [replace(by_name[name], after=graph[name]) for name in order]
