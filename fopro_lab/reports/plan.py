"""Plans: YAML files of notebooks and their parameters, expanded into nodes to execute."""

import ast
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache, cached_property, partial
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from fopro_lab import config as configs
from fopro_lab.errors import InputError, said_of
from fopro_lab.io import read_json, sha256_text, write_file
from fopro_lab.options import (
    Config,
    current_options,
    flat,
    nearest,
    parse_settings,
    read_value,
    read_yaml,
)

_PACKAGE = Path(__file__).resolve().parents[1]
# notebooks and reports/plans: a wheel brings them with the package, a checkout has them beside it
SHIPPED = next(p for p in (_PACKAGE / "shipped", _PACKAGE.parent) if (p / "notebooks").is_dir())
PATHS = set(
    "dataset split_files weights student_weights prompt_file natural reference student_run "
    "run_dirs cards more_datasets more_teachers teachers".split()
)
_RESERVED = ("notebooks", "pages", "parameters", "runs", "slurm")  # folders of a report
# where text is wanted, numbers are taken as such
_as_text = ConfigDict(coerce_numbers_to_str=True)
_adapter: Callable[[type], TypeAdapter[Any]] = cache(partial(TypeAdapter, config=_as_text))


class PlanEntry(Config):
    """One notebook of a plan; a matrix makes several nodes of it."""

    notebook: str = Field(min_length=1, description="name in notebooks/, or a path")
    matrix: dict[str, list[Any]] = Field({}, description="name to values; a node per combination")
    parameters: dict[str, Any] = Field({}, description="values for this notebook alone")
    after: list[str] = Field([], description="entries or nodes that must be done before")
    when: dict[str, Any] = Field({}, description="condition; where it does not hold, left out")
    limit: str = Field("", description="longest time, such as 30 min; empty is the plan's")


class Plan(Config):
    """A directed graph of notebooks and their parameters, as written in YAML."""

    title: str = Field(min_length=1, description="headline of the index page")
    about: str = Field("", description="one paragraph: the question of the report")
    defaults: dict[str, Any] = Field({}, description="for every notebook that knows the name")
    fixed: list[str] = Field([], description="options that neither -f nor --set may change")
    limit: str = Field("", description="longest time of each notebook, such as 2 h; empty is none")
    most_nodes: int = Field(2000, ge=1, description="a plan that expands to more is refused")
    notebooks: dict[str, PlanEntry] = Field(min_length=1, description="name to entry")


@dataclass(frozen=True)
class Notebook:
    """A notebook and the parameters that it takes."""

    path: Path
    cells: list[tuple[str, str]]  # kind and source
    declared: dict[str, Any]  # default of every name in the cell tagged ``parameters``
    kind: type[Config] | None  # named by the metadata ``fopro.config``

    @cached_property
    def shown(self) -> str:
        """Its path as seen from here, without folders if it lies elsewhere."""
        path, here = self.path.resolve(), Path.cwd()
        return str(path.relative_to(here)) if path.is_relative_to(here) else path.name

    @cached_property
    def known(self) -> dict[str, Any]:
        """Default of every name that it takes, declared or through ``options``."""
        fields = self.kind.model_fields if self.kind and "options" in self.declared else {}
        return {name: field.get_default() for name, field in fields.items()} | self.declared

    def parameters(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Arrange flat values as the notebook takes them, undeclared ones in ``options``."""
        refuse_unknown(values, self.known, why=f"not declared by {self.path.stem}")
        chosen = {
            name: fit_value(values[name], default, name=name)
            for name, default in self.declared.items()
            if name in values
        }
        options = {name: value for name, value in values.items() if name not in self.declared}
        # a parameter at its default counts as not given, an option never does
        if self.known != self.declared:
            recipe = str({**self.declared, **values}.get("recipe"))
            defaults = configs.TrainConfig.model_fields
            for name in configs.RECIPES.get(recipe, {}):
                if name in chosen and chosen[name] == defaults[name].default:
                    options[name] = chosen[name]
        return chosen | ({"options": options} if options else {})

    def config(self, parameters: Mapping[str, Any]) -> Config:
        """Build the config that the notebook will build from these parameters, if it does."""
        if self.kind is None:  # its options are its own, whatever they are called
            return Config()
        return self.kind.from_parameters({**self.declared, **parameters})


@dataclass(frozen=True)
class Node:
    """One notebook to execute.

    ``places`` are assigned by the report where the notebook declares the name: ``out_dir`` for its
    figures and tables, ``run_dir`` for the run that it trains, ``run_dirs`` of what it waits for.
    """

    name: str
    entry: str
    notebook: Notebook
    parameters: dict[str, Any]  # chosen by the plan and the caller, as the notebook takes them
    config: Config  # what the notebook makes of them
    places: dict[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    limit: float = 0.0  # longest time in seconds, 0 for none
    left_out: str = ""  # why it is not executed at all; empty if it is

    @property
    def given(self) -> dict[str, Any]:
        """The parameters that were chosen, flat."""
        rest = {name: value for name, value in self.parameters.items() if name != "options"}
        return {**rest, **self.parameters.get("options", {})}

    @property
    def values(self) -> dict[str, Any]:
        """Every value that the notebook will use, flat."""
        return {**self.notebook.declared, **self.given, **self.config.model_dump()}


@dataclass(frozen=True)
class NodeReport:
    """How one node ended: done, kept, failed, skipped, stopped or left out."""

    name: str
    entry: str
    state: str
    seconds: float = 0.0
    folder: str = ""  # its ``out_dir``, as seen from the index
    page: str = ""  # its HTML page, likewise; empty for none
    reason: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)  # those that any node is given
    notebook: str = ""  # its file
    made_by: str = ""  # commit, versions and machine; of a kept one those of its execution
    log: str = ""  # output of its batch job, as seen from the index


@dataclass(frozen=True)
class Report:
    """All that an index shows, but for what lies in the nodes' folders."""

    title: str
    about: str
    nodes: Sequence[NodeReport]
    facts: Mapping[str, str] = field(default_factory=dict)


def find_plan(name: Path | str) -> Path:
    """Find a plan by its path, or by a name such as ``demo``: here, then among the package's."""
    path, file = Path(name), Path("reports", "plans", f"{name}.yaml")
    if not path.is_file() and path.name == str(name):
        for folder in (Path(), SHIPPED):
            if (folder / file).is_file():
                return folder / file
    return path


def read_plan(path: Path | str) -> Plan:
    """Read and validate a plan; its notebooks are not looked at yet."""
    path = Path(path)
    if not path.exists():
        folders = (path.parent, path.parent / "plans", path.parent / "reports" / "plans")
        names = sorted(plan.stem for plan in SHIPPED.glob("reports/plans/*.yaml"))
        plans = dict(zip(names, names, strict=True))
        for folder in folders:
            plans |= {plan.stem: str(plan) for plan in sorted(folder.glob("*.yaml"))}
        match = get_close_matches(path.stem, plans, n=1)
        way = f"did you mean '{plans[match[0]]}'?" if match else f"known: {', '.join(names)}"
        raise InputError(f"{path}: no such file; {way}")
    content = read_yaml(path)
    with said_of(str(path)):
        plan = Plan.from_mapping(content)
        for name in plan.notebooks:
            if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
                raise InputError(f"notebooks: expected names of letters and digits, got '{name}'")
    return plan


def find_notebook(name: str, *, plan: Path | str = "") -> Path:
    """Find a notebook by its path, seen from the plan or from here, or by a name: ``04_train``."""
    # beside the plan; then ``notebooks`` of the plan's repository (two folders up), of the current
    # folder and of the package; then the current folder
    file = Path(name if name.endswith(".ipynb") else f"{name}.ipynb")
    homes = [Path("notebooks").absolute(), SHIPPED / "notebooks"]
    if plan and len(parents := Path(plan).absolute().parents) > 2:
        homes.insert(0, parents[2] / "notebooks")
    for folder in [*([Path(plan).parent] if plan else []), *homes, Path()]:
        if (folder / file).is_file():
            return folder / file
    known = sorted({path.stem for folder in homes for path in folder.glob("*.ipynb")})
    tried = " or ".join(dict.fromkeys(map(str, homes)))
    raise InputError(f"{name}: no such notebook in {tried}; {nearest(name, known)}")


def copy_shipped(folder: Path | str) -> tuple[list[Path], list[Path]]:
    """Copy notebooks and plans of the package into a folder; a file that is there is left alone.

    Returns what was written, and what was there already with another content.
    """
    written, other = [], []
    files = [*SHIPPED.glob("notebooks/*.ipynb"), *SHIPPED.glob("reports/plans/*.yaml")]
    for source in sorted(files):
        target, content = Path(folder) / source.relative_to(SHIPPED), source.read_bytes()
        if not target.exists():
            write_file(target, content)
            written.append(target)
        elif not target.is_file() or target.read_bytes() != content:
            other.append(target)
    return written, other


def read_notebook(path: Path | str) -> Notebook:
    """Read a notebook's cells, its parameters and the name of its config."""
    # as plain JSON, since importing nbformat takes a second; and with Python's own parser, since
    # papermill's inspection overlooks ``x: int | None = None`` and cuts a text at ``#``
    with said_of(str(path)):
        try:
            content = read_json(path)
            every = [(c.get("cell_type", ""), "".join(c["source"])) for c in content["cells"]]
            tags = [cell.get("metadata", {}).get("tags", []) for cell in content["cells"]]
            kind = content.get("metadata", {}).get("fopro", {}).get("config", "")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise InputError("expected a notebook of format 4, got something else") from None
        tagged = [s for (_, s), own in zip(every, tags, strict=True) if "parameters" in own]
        if len(tagged) > 1:
            raise InputError(f"expected one cell tagged 'parameters', got {len(tagged)}")
        try:
            statements = ast.parse("".join(tagged)).body
        except SyntaxError as error:
            raise InputError(f"parameters cell: line {error.lineno} is no Python") from None
        found = getattr(configs, kind, None) if kind else None
        if kind and found is None:
            raise InputError(f"metadata fopro.config: no config is named '{kind}'")
        return Notebook(Path(path), every, dict(map(_name_and_default, statements)), found)


def _name_and_default(statement: ast.stmt) -> tuple[str, Any]:
    """Split ``name: type = literal`` into name and default."""
    match statement:
        case (
            ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            | ast.Assign(targets=[ast.Name(id=name)], value=value)
        ):
            with suppress(ValueError):
                return name, ast.literal_eval(value)
    got = f"got '{ast.unparse(statement)}'; move it to the next cell"
    raise InputError(f"parameters cell: expected lines 'name: type = literal', {got}")


def fit_value(value: Any, default: Any, *, name: str) -> Any:
    """Check a value against the type of the declared default; ``None`` takes anything."""
    if default is None:
        return value
    try:
        value = read_value(value, type(default), name=name)
        return _adapter(type(default)).validate_python(value)
    except ValidationError:
        hint = f"; quote it: '\"{value}\"'" if isinstance(default, str) else ""
        wanted = f"{type(default).__name__} like {default!r}"
        raise InputError(f"{name}: expected {wanted}, got {value!r}{hint}") from None


def _means(choice: Any, value: Any) -> bool:
    """Tell whether a choice of a plan, such as the text 1e-3, stands for a notebook's value."""
    with suppress(InputError):
        choice = fit_value(choice, value, name="")
    return bool(choice == value)


def plan_nodes(
    path: Path | str,
    *,
    out: Path | str,
    settings: Sequence[str] = (),
    files: Sequence[Path | str] = (),
    limit: float = 0.0,
    inputs: Sequence[str] | None = (),
) -> list[Node]:
    """Expand a plan into nodes, in an order in which they can be executed.

    Values are laid over each other: the plan's defaults, the entry's parameters, files, settings.
    Where a matrix varies the option, files and settings replace its values, and may be a list;
    ``a.b=1`` changes one entry of a mapping. Conditions are evaluated before anything runs. A
    ``limit`` in seconds replaces the plan's. Missing data and weights are refused of the nodes or
    entries in ``inputs``: of all if it is empty, of none if it is None.
    """
    plan = read_plan(path)
    entries = plan.notebooks.items()
    books = {n: read_notebook(find_notebook(entry.notebook, plan=path)) for n, entry in entries}
    matrices = {name: current_options(entry.matrix) for name, entry in entries}
    axes = {(axis, books[name].kind) for name, matrix in matrices.items() for axis in matrix}
    varied = {axis for axis, _ in axes}
    known = dict.fromkeys(key for book in books.values() for key in book.known)
    why = "an option of no notebook in the plan"
    with said_of(f"{path}: fixed"):
        refuse_unknown(plan.fixed, known, why=why)
    sources = [(f"{path}: defaults", plan.defaults)]
    sources += [(f"-f {file}", read_yaml(file)) for file in files]
    sources += [("--set", parse_settings(settings))]
    layers: list[dict[str, Any]] = []
    for where, values in sources:
        with said_of(where):
            layers.append(flat(values))
            refuse_unknown(layers[-1], known, why=why)
            for key in [key for key in plan.fixed if key in layers[-1] and layers[1:]]:
                raise InputError(f"{key}: fixed by {path}; leave it out, or edit a copy")
    named = [text.partition("=")[0].strip().removeprefix("options.") for text in settings]
    dotted = {name.partition(".")[0] for name in named if "." in name}
    nodes: list[Node] = []
    states: dict[str, str] = {}
    for name, entry in entries:
        book, matrix = books[name], matrices[name]
        with said_of(f"{path}: {name}"):
            own = flat(entry.parameters)
            refuse_unknown([*own, *matrix], book.known, why=f"not declared by {entry.notebook}")
            seconds = limit or limit_seconds(entry.limit or plan.limit, name="limit")
        given = {key: value for key, value in layers[0].items() if key in book.known} | own
        for layer in layers[1:]:
            for key, value in layer.items():
                if key in matrix:
                    matrix[key] = value if isinstance(value, list) else [value]
                elif key not in book.known or (key in varied and isinstance(value, list)):
                    continue  # a list of values is meant for the matrices that vary this option
                elif key not in book.declared and (key, book.kind) in axes:
                    continue  # 03 and 04 share a config: a method for 04's matrix is not for 03
                elif layer is layers[-1] and key in dotted and isinstance(value, dict):
                    given[key] = {**given.get(key, book.known[key]), **value}
                else:
                    given[key] = value
        for axis in [axis for axis, choices in matrix.items() if not choices]:
            raise InputError(f"{path}: {name}: matrix: {axis}: expected one value or more")
        methods = {"method", *configs.Parts._fields} & matrix.keys()
        shared = {k for layer in layers if methods for k in layer} - own.keys() - matrix.keys()
        idles: list[set[str]] = []  # of each choice
        if (count := len(nodes) + math.prod(map(len, matrix.values()))) > plan.most_nodes:
            way_out = f"shorten the matrix, or set most_nodes: {count} in the plan"
            raise InputError(f"{path}: {name}: expands to {count:,} nodes or more; {way_out}")
        for choice in itertools.product(*matrix.values()):
            node_name = "-".join([name, *(re.sub(r"[^\w.]+", "_", str(part)) for part in choice)])
            with said_of(node_name):
                values = {**given, **dict(zip(matrix, choice, strict=True))}
                parameters = book.parameters(values)
                config = book.config(parameters)
                # of a matrix of methods, an option of the whole plan is for those that use it
                idle = {line.partition(":")[0] for line in _unused(config)} & shared
                idles.append(idle)
                if idle:
                    parameters = book.parameters({k: v for k, v in values.items() if k not in idle})
                    config = book.config(parameters)
            node = Node(node_name, name, book, parameters, config, {}, tuple(entry.after), seconds)
            with said_of(f"{path}: {name}: when"):
                node = replace(node, left_out=unmet(entry.when, node.values))
            checked = inputs is not None and (not inputs or {name, node_name} & {*inputs})
            if checked and not node.left_out:
                for missing in missing_inputs(config, made_by_plan=True):
                    raise InputError(f"{node_name}: {missing}")
            nodes.append(replace(node, places=_places(node, Path(out), states)))
        for key in set.intersection(*idles):
            raise InputError(f"{key}: expected none, as no method of {name} uses it")
    with said_of(str(path)):
        return _in_order(nodes)


def one_node(notebook: Path | str, parameters: Mapping[str, Any], *, out: Path) -> Node:
    """Check a notebook with its parameters and inputs; ``out`` is its folder, runs lie below."""
    book = read_notebook(find_notebook(str(notebook)))
    name = book.path.stem
    with said_of(name):
        chosen = book.parameters(flat(parameters))
        node = Node(name, name, book, chosen, book.config(chosen))
    for missing in missing_inputs(node.config):
        raise InputError(missing)
    places = _places(node, out, {})
    return replace(node, places=places | ({"out_dir": str(out)} if "out_dir" in places else {}))


def refuse_unknown(names: Iterable[str], known: Mapping[str, Any], *, why: str) -> None:
    """Refuse a name that is not known, with the nearest one."""
    for name in names:
        if name == "out_dir":
            raise InputError("out_dir: set by the report itself; use --out")
        if name not in known:
            raise InputError(f"{name}: {why}; {nearest(name, known)}")


def _unused(config: Config | None) -> list[str]:
    """Say which options no part of a method uses; one's own function may take any."""
    if not isinstance(config, configs.TrainConfig) or any(map(configs.is_called, config.parts)):
        return []
    return configs.unused_options(config)


def _places(node: Node, out: Path, states: dict[str, str]) -> dict[str, Any]:
    """Assign folders; a run's bears a hash of its config and of the files read, and no more."""
    root = out.resolve()  # as seen from here, so that pages show no path of this machine
    root = root.relative_to(Path.cwd()) if root.is_relative_to(Path.cwd()) else root
    # what is left at its default says nothing, so that a new option does not rename the runs
    chosen = node.config.model_dump(mode="json", exclude_defaults=True)
    if node.notebook.kind is None:
        chosen = {**node.notebook.declared, **node.given}
    free = node.notebook.declared.keys() - node.given.keys()
    read = {n: v for n, v in node.values.items() if n not in free & {"out_dir", "run_dir"}}
    depends = [chosen, files_states(read, words=type(node.config).model_fields, known=states)]
    text = json.dumps(depends, sort_keys=True, default=str)
    run = f"{node.name}-{sha256_text(text)[:8]}"
    places = {"out_dir": str(root / node.name), "run_dir": str(root / "runs" / run)}
    return {name: place for name, place in places.items() if name in free}


def _in_order(nodes: Sequence[Node]) -> list[Node]:
    """Resolve every ``after`` and sort; nothing waits for a node that is left out."""
    groups: dict[str, list[str]] = {}
    for node in nodes:
        if node.name in groups:
            raise InputError(f"{node.name}: two nodes have this name; rename an entry")
        if node.name in _RESERVED:
            raise InputError(f"{node.name}: the report keeps a folder of this name; rename it")
        groups[node.name] = [node.name]
    for node in nodes:
        if node.name != node.entry:
            groups.setdefault(node.entry, []).append(node.name)
    graph: dict[str, tuple[str, ...]] = {}
    for node in nodes:
        for before in [before for before in node.after if before not in groups]:
            raise InputError(f"{node.entry}: after: no entry '{before}'; {nearest(before, groups)}")
        graph[node.name] = tuple(name for before in node.after for name in groups[before])
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise InputError(f"notebooks wait for each other: {circle}") from None
    by_name = {node.name: node for node in nodes}
    done: dict[str, Node] = {}
    for name in order:
        node = by_name[name]
        kept = [done[other] for other in graph[name] if not done[other].left_out]
        reason = node.left_out
        if graph[name] and not kept and not reason:
            reason = f"all that it waits for is left out ({', '.join(graph[name])})"
        places = dict(node.places)
        run_dirs = [r for other in kept if (r := {**other.places, **other.given}.get("run_dir"))]
        if run_dirs and "run_dirs" in node.notebook.declared and "run_dirs" not in node.given:
            places["run_dirs"] = run_dirs
        after = tuple(other.name for other in kept)
        done[name] = replace(node, after=after, left_out=reason, places=places)
    return list(done.values())


def chosen_names(nodes: Sequence[Node], only: Sequence[str], *, option: str) -> set[str]:
    """Return the names of the nodes that are meant, by their own name or their entry's."""
    known = {word: None for node in nodes for word in (node.name, node.entry)}
    for word in only:
        if word not in known:
            raise InputError(f"{option}: no notebook '{word}' in the plan; {nearest(word, known)}")
    return {node.name for node in nodes if {node.name, node.entry} & set(only)}


def unmet(when: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Return the first part of a condition that does not hold, in words; empty if all do.

    A condition maps names of parameters to a value or a list of values, and ``exists`` to a path
    or a list of paths. One that cannot be evaluated is refused.
    """
    reasons = []
    for name, wanted in when.items():
        choices = wanted if isinstance(wanted, list) else [wanted]
        if name not in (*values, "exists"):
            hint = nearest(str(name), [*values, "exists"])
            raise InputError(f"{name}: not declared by its notebook; {hint}")
        if not choices or (name == "exists" and not all(isinstance(p, str) and p for p in choices)):
            raise InputError(f"{name}: expected one value or more, got {wanted!r}")
        if name == "exists":
            absent = [path for path in choices if not Path(path).expanduser().exists()]
            reasons += [f"{absent[0]} does not exist"] if absent else []
        elif not any(_means(choice, values[name]) for choice in [*choices, wanted]):
            reasons.append(f"{name} is {values[name]}, not {' or '.join(map(str, choices))}")
    return next(iter(reasons), "")


def limit_seconds(text: str, *, name: str) -> float:
    """Read a time limit as seconds, 0 for none; a number alone is minutes."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(s|min|h|)\s*", text)
    factors = {"s": 1.0, "min": 60.0, "": 60.0, "h": 3600.0}
    seconds = float(match[1]) * factors[match[2]] if match else 0.0
    if seconds or not text:
        return seconds
    raise InputError(f"{name}: expected a time such as '90 s', '30 min' or '2 h', got '{text}'")


def files_states(
    values: Mapping[str, Any], *, words: Collection[str] = (), known: dict[str, str] | None = None
) -> dict[str, str]:
    """Hash names, sizes and times of every file or folder that a notebook's values point to.

    A text counts if it names what exists, also in a list or a mapping; those of ``words``, such as
    a method, only with a separator. ``known`` is read and filled: listing a data set takes a while.
    """
    known = {} if known is None else known
    states = {}
    for name, value in values.items():
        parts = value.values() if isinstance(value, Mapping) else value
        for text in parts if isinstance(value, Mapping | list | tuple) else [value]:
            text = str(text).rpartition("=")[2] if name == "more_teachers" else text
            word = name in words and name not in PATHS and os.sep not in str(text)
            if word or not text or not isinstance(text, str):
                continue
            path = Path(os.path.expanduser(text))
            if text not in known and os.path.exists(path):
                if name not in PATHS and Path.cwd().is_relative_to(path.resolve()):
                    continue  # a separator or a dot, and no list of all that lies here
                found = [(p, p.stat()) for p in [path, *sorted(path.rglob("*"))] if p.is_file()]
                facts = [(str(p.relative_to(path)), s.st_size, s.st_mtime_ns) for p, s in found]
                known[text] = sha256_text(repr(facts))
            if text in known:
                states[name if text == value else f"{name}: {text}"] = known[text]
    return states


def missing_inputs(config: Config, *, made_by_plan: bool = False) -> list[str]:
    """List what a notebook would read and not find, or not use, a line each.

    Nothing is opened or fetched.
    """
    found: list[str] = []

    def look(find: Callable[..., Any], *args: Any, **keys: Any) -> None:
        try:
            find(*args, **keys)
        except InputError as error:
            found.append(str(error))

    if isinstance(config, configs.DataConfig) and config.dataset != "phantom":
        from fopro_lab.data.dataset import check_place  # pandas: late

        look(check_place, config.dataset)
    drawn = ("draw", "folds", "long-tail", "folds-long-tail")
    if isinstance(config, configs.DataConfig) and config.rule not in drawn:
        from fopro_lab.data.published_splits import published_files

        look(published_files, config)
    if isinstance(config, configs.TeacherConfig):
        alone = isinstance(config, configs.TrainConfig) and not config.parts.is_taught
        if config.weights and not Path(config.weights).expanduser().is_file():
            found.append(f"weights: {config.weights}: no such file")
        elif not (config.weights or alone or config.teacher == "builtin"):
            from fopro_lab.models.teacher import fetched_weights  # torch: late

            look(fetched_weights, config.teacher)
    found += _unused(config)
    # an earlier notebook of a plan may still write these
    for name in () if made_by_plan else ("student_weights", "prompt_file", "natural", "reference"):
        path = getattr(config, name, "")
        if path and not Path(path).expanduser().exists():
            way = f"give a path that exists: --set {name}=PATH"
            found.append(f"{name}: {path}: no such file; {way}")
    return found


def duration(seconds: float) -> str:
    """Write a duration for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
