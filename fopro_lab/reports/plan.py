"""What a node reads from outside: is it here, and if not, what brings it?"""

import hashlib
import os
from collections.abc import Mapping, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any
import fopro_lab
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fopro_lab.io import in_bytes
import ast
import json
from collections.abc import Mapping
from difflib import get_close_matches
from fopro_lab.errors import InputError
import re
from pydantic import Field
from fopro_lab.config import Config
from fopro_lab.config import read_yaml
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fopro_lab.config import parse_settings, read_yaml
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from fopro_lab.config import ProbeConfig, TrainConfig
from dataclasses import dataclass
from fopro_lab.config import DataConfig, TrainConfig
from fopro_lab.data.benchmarks import SAME_IMAGES, benchmark_place
from fopro_lab.data.split_rules import PARTS
from fopro_lab.data.published_splits import find_split_files
from fopro_lab.data.fetch import data_folder, fetched_place, find_source



PATHS = ("dataset", "split_files", "weights", "student_weights", "prompt_file", "natural")


@cache
def package_hash() -> str:
    """Hash the source of all that a notebook can import: not the runner, not the door.

    Example:
        >>> len(package_hash())
        64
    """
    root = Path(fopro_lab.__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.safetensors")]):
        name = path.relative_to(root).as_posix()
        parts = name.removesuffix(".py").split("/")
        if parts[0] not in ("cli", "reports"):
            digest.update(name.encode() + path.read_bytes())
    return digest.hexdigest()


@cache
def page_hash() -> str:
    """Hash what makes the pages of a report: a finished one is written anew when it changes.

    Example:
        >>> len(page_hash())
        64
    """
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(
        [*root.glob("*.py"), *(p for p in root.glob("templates/**/*") if p.is_file())]
    ):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def files_states(
    parameters: Mapping[str, Any], *, known: MutableMapping[str, str] | None = None
) -> dict[str, str]:
    """Tell the state of every file or folder that a node's parameters point to.

    Args:
        parameters: Names and values. Those in `PATHS` are paths; of the others a text with a
            separator is, so that a method's name never means a folder that happens to lie here.
        known: States of paths that were looked up before, and are added here: many nodes read
            one data set, and listing it takes a while.

    Returns:
        A hash of names, sizes and times by parameter; no entry where there is no such path.

    Example:
        >>> files_states({"method": "ekd", "dataset": "phantom", "folder": "../no/such"})
        {}
    """
    known = {} if known is None else known
    states = {}
    for name, value in parameters.items():
        if isinstance(value, str) and value and (name in PATHS or os.sep in value):
            if value not in known:
                known[value] = _files_state(Path(value).expanduser())
            if known[value]:
                states[name] = known[value]
    return states


def _files_state(path: Path) -> str:
    if not path.exists():
        return ""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    states = [(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(repr(states).encode()).hexdigest()


@dataclass(frozen=True)
class NodeReport:
    """How one node ended: done, kept, failed, skipped, stopped or left out.

    ``folder`` is its ``out_dir`` and ``page`` its HTML page, both seen from the index; ``page`` is
    empty when there is none. ``reason`` says in one line what went wrong. ``memory`` is the peak of
    its processes in bytes, 0 where it is not known; ``attempts`` how often its kernel was started.
    """

    name: str
    entry: str
    state: str
    seconds: float = 0.0
    folder: str = ""
    page: str = ""
    reason: str = ""
    parameters: str = ""
    memory: int = 0
    attempts: int = 1

    @property
    def peak(self) -> str:
        """The peak of memory as a person says it; empty where it is not known."""
        return in_bytes(self.memory) if self.memory else ""

    @property
    def time(self) -> str:
        """The duration as a person says it; empty if the node never ran."""
        return duration(self.seconds) if self.seconds else ""


@dataclass(frozen=True)
class Report:
    """All that the index says in words."""

    title: str
    about: str
    nodes: Sequence[NodeReport]
    facts: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self)


def duration(seconds: float) -> str:
    """Say a duration.

    Args:
        seconds: At least 0.

    Example:
        >>> duration(3.24), duration(75), duration(3720)
        ('3.2 s', '1 min 15 s', '1 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def declared_parameters(notebook: Path | str) -> dict[str, Any]:
    """Read names and defaults from the cell tagged ``parameters``.

    papermill's own inspection overlooks ``x: int | None = None`` and cuts a text at ``#``; here
    Python's own parser reads the cell.

    Args:
        notebook: An ``.ipynb`` file.

    Returns:
        Default of every declared name, in the cell's order; empty when no cell is tagged.

    Raises:
        InputError: If the file is no notebook, two cells are tagged, or a default is no literal.

    Example:
        >>> import tempfile
        >>> cell = {"source": "epochs: int = 3  # passes", "metadata": {"tags": ["parameters"]}}
        >>> with tempfile.NamedTemporaryFile("w", suffix=".ipynb") as file:
        ...     _ = file.write(json.dumps({"cells": [cell]}))
        ...     file.flush()
        ...     declared_parameters(file.name)
        {'epochs': 3}
    """
    cells = [
        cell["source"]
        for cell in read_cells(notebook)
        if "parameters" in cell.get("metadata", {}).get("tags", [])
    ]
    if len(cells) > 1:
        raise InputError(f"{notebook}: expected one cell tagged 'parameters', got {len(cells)}")
    try:
        statements = ast.parse(cells[0]).body if cells else []
    except SyntaxError as error:
        raise InputError(f"{notebook}: parameters cell: line {error.lineno} is no Python") from None
    return dict(_name_and_default(notebook, statement) for statement in statements)


def _name_and_default(notebook: Path | str, statement: ast.stmt) -> tuple[str, Any]:
    """Split ``name: type = literal`` into name and default."""
    target: ast.expr | None = None
    if isinstance(statement, ast.AnnAssign):
        target = statement.target
    elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
    value = getattr(statement, "value", None)
    if isinstance(target, ast.Name) and value is not None:
        try:
            return target.id, ast.literal_eval(value)
        except ValueError:
            pass
    raise InputError(
        f"{notebook}: parameters cell: expected lines 'name: type = literal', "
        f"got '{ast.unparse(statement)}'; move it to the next cell"
    )


def read_cells(path: Path | str) -> list[dict[str, Any]]:
    """Read the cells of an ``.ipynb`` file; as plain JSON, since nbformat's import costs a second.

    Args:
        path: The file, in notebook format 4.

    Returns:
        Its cells, each with ``source`` as one text.

    Raises:
        InputError: If it is missing or is no notebook.

    Example:
        >>> read_cells("nowhere.ipynb")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.ipynb: no such notebook
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return [{**cell, "source": "".join(cell["source"])} for cell in content["cells"]]
    except FileNotFoundError:
        raise InputError(f"{path}: no such notebook") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: expected a notebook of format 4, got something else") from None


def fit_value(value: Any, default: Any, *, name: str) -> Any:
    """Check a value against the type of the declared default.

    A whole number serves where a float is declared, and so does the text of a number, since YAML
    reads ``1e-3`` as text. ``None`` as a default takes anything.

    Args:
        value: What a plan or ``--set`` gives.
        default: What the notebook declares.
        name: For the message: who wants which name.

    Returns:
        The value to hand to the notebook.

    Raises:
        InputError: If the type is another.

    Example:
        >>> fit_value("1e-3", 0.1, name="train: learning_rate")
        0.001
        >>> fit_value("many", 3, name="train: epochs")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: train: epochs: expected a whole number like 3, got 'many'
    """
    if default is None or type(value) is type(default):
        return value
    if isinstance(default, float) and type(value) in (int, str):
        try:
            return float(value)
        except ValueError:
            pass
    if isinstance(default, tuple) and isinstance(value, list):
        return value
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    kind = kinds.get(type(default), f"a {type(default).__name__}")
    hint = f"; quote it: '\"{value}\"'" if isinstance(default, str) else ""
    raise InputError(f"{name}: expected {kind} like {default!r}, got {value!r}{hint}")


def nearest(name: str, known: Mapping[str, Any] | list[str]) -> str:
    """Return the way out of a misspelt name: the nearest known one, or all of them.

    Example:
        >>> nearest("epoch", ["epochs", "seed"])
        "did you mean 'epochs'?"
        >>> nearest("zzz", ["epochs", "seed"])
        'known: epochs, seed'
    """
    match = get_close_matches(name, list(known), n=1)
    return f"did you mean '{match[0]}'?" if match else f"known: {', '.join(known) or 'none'}"


_WORDS = ("exists", "not", "any")


def check_condition(when: Mapping[str, Any], *, declared: Mapping[str, Any], where: str) -> None:
    """Refuse a condition that cannot be asked.

    Args:
        when: Names of parameters to a value or a list of values; ``exists`` to a path or a list
            of paths; ``not`` to a condition; ``any`` to a list of conditions. All must hold.
        declared: What the notebook declares.
        where: For the message: which entry of which plan.

    Raises:
        InputError: If a name is declared nowhere, or a word is followed by something else.

    Example:
        >>> check_condition({"metod": "ekd"}, declared={"method": "bsm"}, where="plan.yaml: tail")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: plan.yaml: tail: when: metod: ...; did you mean 'method'?
    """
    for name, wanted in when.items():
        if name == "exists":
            paths = wanted if isinstance(wanted, list) else [wanted]
            if not paths or not all(isinstance(path, str) and path for path in paths):
                raise InputError(f"{where}: when: exists: expected a path, got {wanted!r}")
        elif name in ("not", "any"):
            parts = [wanted] if name == "not" else wanted
            if not isinstance(parts, list) or not all(p and isinstance(p, Mapping) for p in parts):
                kind = "a condition" if name == "not" else "a list of conditions"
                raise InputError(f"{where}: when: {name}: expected {kind}, got {wanted!r}")
            for part in parts:
                check_condition(part, declared=declared, where=where)
        elif name not in declared:
            hint = nearest(str(name), [*declared, *_WORDS])
            raise InputError(f"{where}: when: {name}: not declared by its notebook; {hint}")
        elif wanted == []:
            raise InputError(f"{where}: when: {name}: expected one value or more")


def unmet(when: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Find what keeps a condition from holding.

    Args:
        when: As of `check_condition`.
        values: The node's parameters with the notebook's defaults.

    Returns:
        Empty if it holds, else the first part that does not, in words.

    Example:
        >>> unmet({"method": ["fopro", "random"]}, {"method": "ekd"})
        'method is ekd, not fopro or random'
        >>> unmet({"exists": "no/such.pth"}, {}), unmet({"not": {"seed": 0}}, {"seed": 1})
        ('no/such.pth is not there', '')
    """
    for name, wanted in when.items():
        reason = ""
        if name == "exists":
            paths = wanted if isinstance(wanted, list) else [wanted]
            absent = [path for path in paths if not Path(path).expanduser().exists()]
            reason = f"{absent[0]} is not there" if absent else ""
        elif name == "not":
            reason = "" if unmet(wanted, values) else f"{_told(wanted)} holds"
        elif name == "any":
            reasons = [unmet(part, values) for part in wanted]
            reason = "" if "" in reasons else " and ".join(reasons) or "no condition is given"
        else:
            choices = wanted if isinstance(wanted, list) else [wanted]
            if values[name] not in choices and values[name] != wanted:
                among = " or ".join(str(choice) for choice in choices)
                reason = f"{name} is {values[name]}, not {among}"
        if reason:
            return reason
    return ""


def _told(when: Mapping[str, Any]) -> str:
    return json.dumps(when, default=str).replace('"', "")


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


@dataclass(frozen=True)
class Overrides:
    """What the caller puts on top of a plan.

    Attributes:
        pins: Names and values of the pin files, the later file on top.
        values: Those of ``--set``, on top of the pins.
        dotted: Names of which ``--set`` changes single entries.
        sources: Where each pinned name comes from.
    """

    pins: dict[str, Any]
    values: dict[str, Any]
    dotted: set[str] = field(default_factory=set)
    sources: dict[str, str] = field(default_factory=dict)

    def axis(self, name: str) -> Any:
        """Return what replaces an axis of a matrix; None if nothing does."""
        return self.values.get(name, self.pins.get(name))

    def on(
        self, given: Mapping[str, Any], *, defaults: Mapping[str, Any], axes: set[str]
    ) -> dict[str, Any]:
        """Put pins and settings on a node's values, wherever its notebook declares the name."""
        result = dict(given)
        for layer in (self.pins, self.values):
            for key in defaults.keys() & layer.keys():
                if key in axes and isinstance(layer[key], list):
                    continue  # several values are meant for the matrix alone
                old = result.get(key, defaults[key])
                partly = layer is self.values and key in self.dotted and isinstance(old, dict)
                result[key] = {**old, **layer[key]} if partly else layer[key]
        return result


def read_overrides(settings: Sequence[str], files: Sequence[Path | str]) -> Overrides:
    """Read ``--set`` texts and pin files.

    Args:
        settings: Texts ``name=value``.
        files: YAML files of names and values; a path in one is seen from the current folder.

    Raises:
        InputError: If a file is missing or no mapping, or a text has no ``=``.

    Example:
        >>> read_overrides(["a.b=1"], []).dotted
        {'a'}
    """
    pins: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for file in files:
        content = {str(key): value for key, value in read_yaml(file).items()}
        pins |= content
        sources |= dict.fromkeys(content, f"-f {file}")
    names = [text.partition("=")[0].strip() for text in settings]
    dotted = {name.split(".")[0] for name in names if "." in name}
    return Overrides(pins, parse_settings(settings), dotted, sources)


def combinations(
    where: str, name: str, entry: PlanEntry, overrides: Overrides
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the choice of each combination of an entry's matrix.

    Args:
        where: For the message: which entry of which plan.
        name: Of the entry.
        entry: With its matrix.
        overrides: A value for an axis replaces the axis, and may be a list.

    Raises:
        InputError: If an axis has no value.

    Example:
        >>> entry = PlanEntry(notebook="a", matrix={"seed": [0, 1]})
        >>> [name for name, _ in combinations("", "train", entry, read_overrides([], []))]
        ['train-0', 'train-1']
    """
    axes = dict(entry.matrix)
    for key in axes:
        chosen = overrides.axis(key)
        if chosen is not None:
            axes[key] = chosen if isinstance(chosen, list) else [chosen]
    for axis, choices in axes.items():
        if not choices:
            raise InputError(f"{where}: matrix: {axis}: expected one value or more")
    for choice in itertools.product(*axes.values()):
        parts = [re.sub(r"[^\w.]+", "_", str(part)) for part in choice]
        yield "-".join([name, *parts]), dict(zip(axes, choice, strict=True))


def check_declared(
    path: Path | str, plan: Plan, overrides: Overrides, declared: Mapping[str, Mapping]
) -> None:
    """Refuse a name that no notebook, or not the one it is meant for, declares.

    Args:
        path: The plan's file.
        plan: Its content.
        overrides: Of the caller.
        declared: Names and defaults by entry.

    Raises:
        InputError: With the nearest name.
    """
    everywhere = {key: None for names in declared.values() for key in names}
    for name, entry in plan.notebooks.items():
        for key in [*entry.parameters, *entry.matrix]:
            if key not in declared[name]:
                hint = nearest(key, declared[name])
                raise InputError(f"{path}: {name}: {key}: not declared by {entry.notebook}; {hint}")
        if "out_dir" in entry.parameters or "out_dir" in entry.matrix:
            raise InputError(f"{path}: {name}: out_dir: set by the report itself; use --out")
        check_condition(entry.when, declared=declared[name], where=f"{path}: {name}")
    given = [(f"{path}: defaults", key) for key in plan.defaults]
    given += [(overrides.sources[key], key) for key in overrides.pins]
    given += [("--set", key) for key in overrides.values]
    for where, key in given:
        if key == "out_dir":
            raise InputError(f"{where}: out_dir: set by the report itself; use --out")
        if key not in everywhere:
            hint = nearest(key, everywhere)
            raise InputError(f"{where}: {key}: declared by no notebook of the plan; {hint}")


_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def limit_seconds(text: str, *, name: str, unit: str = "") -> float:
    """Read a time limit.

    Args:
        text: A number and ``s``, ``min`` or ``h``; empty for none.
        name: For the message: whose limit it is.
        unit: Of a number alone; empty refuses it.

    Returns:
        Seconds, 0 for no limit.

    Raises:
        InputError: If it is none, or not longer than 0.

    Example:
        >>> limit_seconds("30 min", name="limit"), limit_seconds("2", name="--limit", unit="min")
        (1800.0, 120.0)
        >>> limit_seconds("soon", name="plan.yaml: train: limit")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: plan.yaml: train: limit: expected a time such as ...
    """
    if not text:
        return 0.0
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(s|min|h)?\s*", text)
    chosen = (match[2] or unit) if match else ""
    seconds = float(match[1]) * _SECONDS[chosen] if match and chosen else 0.0
    if seconds <= 0:
        raise InputError(f"{name}: expected a time such as '90 s', '30 min' or '2 h', got '{text}'")
    return seconds


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
            from fopro_lab.data.dataset import check_place

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


_TEACHERLESS = ("ce", "bsm")  # methods that never load one
_OWN_FILES = {
    "student_weights": "weights that the student starts from",
    "prompt_file": "saved prompt",
    "natural": "natural images",
}


@dataclass(frozen=True)
class Missing:
    """Something that a node reads and that is not here.

    Attributes:
        what: In words.
        where: The path where it is looked for.
        way: How it gets there.

    Example:
        >>> print(Missing("saved prompt", "prompt.safetensors", "give the path"))
        saved prompt: not at prompt.safetensors; give the path
    """

    what: str
    where: str
    way: str

    def __str__(self) -> str:
        return f"{self.what}: not at {self.where}; {self.way}"


def missing_inputs(values: Mapping[str, Any]) -> list[Missing]:
    """List what a notebook would read and not find. Nothing is opened, nothing is fetched.

    Args:
        values: The notebook's parameters with its defaults. Names that it does not declare count
            as the knobs' own defaults, which need nothing.

    Returns:
        Data set, files of a published split, the teacher's weights (unless the method has no
        teacher), the student's, a saved prompt and natural images, as far as they are absent.

    Raises:
        InputError: If a value is no knob's.

    Example:
        >>> missing_inputs({"dataset": "phantom", "teacher": "builtin"})
        []
        >>> [str(each) for each in missing_inputs({"prompt_file": "no/such"})]
        ['saved prompt: not at no/such; give a path that exists: --set prompt_file=PATH']
    """
    config = TrainConfig.from_parameters(values)
    found = [_dataset(config), _split_files(config), _teacher(config)]
    for knob, what in _OWN_FILES.items():
        path = getattr(config, knob)
        if path and not _exists(path):
            found.append(Missing(what, path, f"give a path that exists: --set {knob}=PATH"))
    return [each for each in found if each is not None]


def _exists(path: str) -> bool:
    return Path(path).expanduser().exists()


def _fetch(name: str) -> str:
    """Say what brings a source, how large it is as far as known, and under which terms."""
    source = find_source(name)
    size = f"{in_bytes(source.size)}, " if source.size else ""
    terms = source.licence.partition(";")[0]
    return f"`fopro data fetch {name}` brings it ({size}licence: {terms})"


def _dataset(config: DataConfig) -> Missing | None:
    name = config.dataset
    if name == "phantom" or _exists(name):
        return None
    what = f"data set {name}"
    try:
        if benchmark_place(name) is not None:
            return None
    except InputError:
        try:
            source = find_source(SAME_IMAGES.get(name, name))
        except InputError:  # no MedMNIST of this name: told as a path
            pass
        else:
            place = data_folder() / source.folder
            way = f"{_fetch(source.name)}, or --set dataset=FOLDER"
            return Missing(what, str(place), way)
    return Missing(what, name, "give the images' folder or CSV: --set dataset=PATH")


def _split_files(config: DataConfig) -> Missing | None:
    if config.rule == "isic2019-lt":
        names = [f"{part}_skin{config.fold}_{config.tail_ratio:g}.csv" for part in PARTS]
        source = "fopro-splits"
    elif config.rule == "hyperkvasir":
        names, source = [f"{config.folds}_fold_split.csv"], "hyperkvasir"
    else:
        return None
    place = config.split_files or fetched_place(source)
    try:
        find_split_files(
            names, files=Path(place).expanduser() if place else None, fetched=source
        )
    except InputError:
        where = str(place or data_folder() / source)
        way = f"{_fetch(source)}, or --set split_files=FOLDER"
        return Missing(f"published split ({', '.join(names)})", where, way)
    return None


def _teacher(config: TrainConfig) -> Missing | None:
    name, file = config.teacher, config.weights
    if name == "builtin" or (file and Path(file).expanduser().is_file()):
        return None
    from fopro_lab.models.teacher import FETCHED

    if not file and config.method in _TEACHERLESS:
        return None
    source, what, own = FETCHED.get(name), f"weights of {name}", "--set weights=FILE"
    if source is None:
        way = f"nothing here fetches them: take them from their publisher, {own}"
        return Missing(what, file or "any path, since none is named", way)
    if file:
        return Missing(what, file, f"leave weights empty, then {_fetch(source)}, or {own}")
    if fetched_place(source) is not None:
        return None
    place = data_folder() / find_source(source).folder / find_source(source).files[0].name
    return Missing(what, str(place), f"{_fetch(source)}, or {own}")
