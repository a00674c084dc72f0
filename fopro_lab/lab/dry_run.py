"""A plan's graph, what it lacks and what it costs, told without executing anything."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fopro_lab.config import DataConfig, TrainConfig
from fopro_lab.errors import InputError
from fopro_lab.lab.needs import Missing, missing_inputs
from fopro_lab.lab.nodes import Node, plan_nodes
from fopro_lab.lab.outcomes import duration
from fopro_lab.lab.parameters import declared_parameters
from fopro_lab.lab.plans import read_plan
from fopro_lab.lab.records import Record, last_record, node_key, read_record
from fopro_lab.progress import in_bytes


@dataclass(frozen=True)
class Steps:
    """How many steps a training takes.

    Attributes:
        student: Steps of the student; None if the pictures cannot be counted.
        prompt: Steps of the prompt, at most.

    Example:
        >>> Steps(student=None, prompt=0).student is None
        True
    """

    student: int | None
    prompt: int


@dataclass(frozen=True)
class PlannedNode:
    """One notebook as it would be executed.

    Attributes:
        node: Name, notebook, parameters, what it waits for.
        varying: The parameters in which the nodes of this notebook differ.
        steps: Of its training; None if it trains no student.
        last: What it took the last time; None without a record.
        kept: Whether that result still holds and would not be made again.
    """

    node: Node
    varying: dict[str, Any]
    steps: Steps | None
    last: Record | None
    kept: bool


@dataclass(frozen=True)
class DryRun:
    """What executing a plan would mean.

    Attributes:
        title: Of the plan.
        out: Folder of the report.
        nodes: In the order in which they can be executed.
        missing: What the notebooks read and what is not here, each once.
        wrong: What is here and cannot be used, a line each.
    """

    title: str
    out: Path
    nodes: list[PlannedNode]
    missing: list[Missing]
    wrong: list[str]

    @property
    def ready(self) -> bool:
        """Whether nothing is missing or wrong."""
        return not self.missing and not self.wrong

    def lines(self) -> list[str]:
        """Return graph, cost and all that is missing or wrong, as lines for people."""
        return [
            f"{self.title}: {len(self.nodes)} notebooks",
            *_graph(self.nodes),
            *_cost(self.nodes, self.out),
            *(f"missing: {each}" for each in self.missing),
            *(f"wrong: {each}" for each in self.wrong),
        ]


def dry_run(
    plan: Path | str,
    *,
    out: Path | str,
    settings: Sequence[str] = (),
    files: Sequence[Path | str] = (),
    jobs: int = 0,
) -> DryRun:
    """Check all that `run_plan` checks before it starts, and go on where it would stop.

    Data and weights that are not here are listed, all of them. Nothing is executed or written.
    Of the cost only what is known is told: steps, if the pictures can be counted, and how long
    the notebooks took in an earlier report of the same folder. Pictures that cannot be read are
    first noticed when they are packed, so they are counted here.

    Args:
        plan: YAML file, see `Plan`.
        out: Folder of the report.
        settings: Texts ``name=value`` that override the plan.
        files: Pin files, as in `run_plan`.
        jobs: As in `run_plan`.

    Returns:
        The graph, and what it lacks.

    Raises:
        InputError: If plan, settings, a notebook or the folder is wrong.

    Example:
        >>> dry_run("nowhere.yaml", out="reports/nowhere")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.yaml: no such file
    """
    if jobs < 0:
        raise InputError(f"jobs: expected 0 (one a core) or more, got {jobs}")
    nodes = plan_nodes(plan, out=out, settings=settings, files=files, inputs=False)
    out = Path(out)
    _check_writable(out)
    values = {n.name: {**declared_parameters(n.notebook), **n.parameters} for n in nodes}
    missing = list(
        dict.fromkeys(
            m for node in nodes if not node.left_out for m in missing_inputs(values[node.name])
        )
    )
    counted = _Counted()
    planned, kept, keys, states = [], set[str](), dict[str, str](), dict[str, str]()
    for node in nodes:
        keys[node.name] = node_key(node, before=keys, files=states)
        pages = (out / "notebooks" / f"{node.name}.ipynb", out / "pages" / f"{node.name}.html")
        held = read_record(folder=out / node.name, key=keys[node.name]) is not None
        if (
            held
            and not node.left_out
            and all(p.is_file() for p in pages)
            and kept.issuperset(node.after)
        ):
            kept.add(node.name)
        steps = None if node.left_out else _steps(values[node.name], counted)
        last, varying = last_record(folder=out / node.name), _varying(node, nodes)
        planned.append(PlannedNode(node, varying, steps, last, node.name in kept))
    return DryRun(read_plan(plan).title, out, planned, missing, counted.wrong)


def _check_writable(out: Path) -> None:
    """Refuse a folder that `run_plan` could not make, without making it."""
    here = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not here.is_dir() or not os.access(here, os.W_OK):
        reason = "Permission denied" if here.is_dir() else "Not a directory"
        raise InputError(f"out: expected a folder to write to, got {out} ({reason})")


class _Counted:
    """Training pictures of each data set and split, counted once; and what went wrong with it."""

    def __init__(self) -> None:
        self.known: dict[DataConfig, int | None] = {}
        self.wrong: list[str] = []

    def train(self, config: DataConfig) -> int | None:
        if config not in self.known:
            self.known[config] = self._count(config)
        return self.known[config]

    def _count(self, config: DataConfig) -> int | None:
        if missing_inputs(config.model_dump()):
            return None
        from fopro_lab.data.catalog import open_from
        from fopro_lab.data.splits import split_from

        try:
            return len(split_from(open_from(config), config).train)
        except InputError as error:
            self.wrong += [str(error)] if str(error) not in self.wrong else []
            return None


def _steps(values: Mapping[str, Any], counted: _Counted) -> Steps | None:
    """Count the steps of a notebook that trains a student."""
    if not {"method", "student", "epochs", "batch_size"} <= values.keys():
        return None
    config = TrainConfig.from_parameters(values)
    train = counted.train(DataConfig.from_parameters(values))
    each = None if train is None else train // min(config.batch_size, max(train, 1))
    return Steps(None if each is None else config.epochs * each, _prompt_steps(config))


def _prompt_steps(config: TrainConfig) -> int:
    from fopro_lab.training.schedule import explores  # torch comes with it

    return config.explore_steps * sum(explores(config, epoch) for epoch in range(config.epochs))


def _varying(node: Node, nodes: Sequence[Node]) -> dict[str, Any]:
    """Return the parameters of a node that another node of its notebook has otherwise, or not."""
    siblings = [other.parameters for other in nodes if other.notebook == node.notebook]
    return {
        key: value
        for key, value in node.parameters.items()
        if any(key not in other or other[key] != value for other in siblings)
    }


def _graph(nodes: Sequence[PlannedNode]) -> list[str]:
    """Tell every node on a line: name, notebook, what it waits for, what is its own."""
    entries = [each.node.entry for each in nodes]
    names = max(len(each.node.name) for each in nodes)
    books = max(len(each.node.notebook.stem) for each in nodes)
    lines = []
    for number, each in enumerate(nodes, start=1):
        told = [f"{key} = {value}" for key, value in each.varying.items()]
        if each.steps and each.steps.student is not None:
            told.append(f"{each.steps.student:,} steps")
        if each.steps and each.steps.prompt:
            told.append(f"{each.steps.prompt:,} prompt steps")
        told += [f"limit {duration(each.node.limit)}"] if each.node.limit else []
        told += ["kept"] if each.kept else []
        told += [f"left out: {each.node.left_out}"] if each.node.left_out else []
        after = _waits_for(each.node, nodes, entries)
        facts = "; ".join(part for part in (after, ", ".join(told)) if part)
        line = (
            f"{number:3d}  {each.node.name:<{names}}  {each.node.notebook.stem:<{books}}  {facts}"
        )
        lines.append(line.rstrip())
    return lines


def _waits_for(node: Node, nodes: Sequence[PlannedNode], entries: list[str]) -> str:
    """Name what a node waits for; all nodes of one entry by the entry and their number."""
    entry_of = {each.node.name: each.node.entry for each in nodes}
    told: dict[str, None] = {}
    for name in node.after:
        entry = entry_of[name]
        siblings = [other for other in node.after if entry_of[other] == entry]
        whole = entries.count(entry) == len(siblings) > 1
        told[f"{entry} ({len(siblings)})" if whole else name] = None
    return f"after {', '.join(told)}" if told else ""


def _cost(nodes: Sequence[PlannedNode], out: Path) -> list[str]:
    """Tell steps and time, as far as they are known."""
    to_do = [each for each in nodes if not each.kept and not each.node.left_out]
    kept = sum(each.kept for each in nodes)
    lines = [f"kept: {kept} of {len(nodes)} notebooks, whose results still hold"] if kept else []
    training = [each.steps for each in to_do if each.steps]
    known = [steps.student for steps in training if steps.student is not None]
    prompt = sum(steps.prompt for steps in training)
    if training:
        told = [f"{sum(known):,} training steps in {len(known)} notebooks"] if known else []
        unknown = len(training) - len(known)
        told += [f"unknown for {unknown}, whose pictures cannot be counted"] if unknown else []
        told += [f"at most {prompt:,} prompt steps"] if prompt else []
        lines.append(f"steps: {', '.join(told)}")
    known_records = [each.last for each in to_do if each.last is not None]
    timed = [record.seconds for record in known_records]
    if timed:
        rest = len(to_do) - len(timed)
        lines.append(
            f"time: {duration(sum(timed))} of notebooks one after another, as {len(timed)} of them "
            f"took last time" + (f"; unknown for {rest}" if rest else "")
        )
        peak = max(record.memory for record in known_records)
        lines += [f"memory: up to {in_bytes(peak)} of one notebook last time"] if peak else []
    elif to_do:
        lines.append(f"time: unknown, no earlier report in {out}")
    return lines
