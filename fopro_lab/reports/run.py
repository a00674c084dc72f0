"""Execute a plan's notebooks in parallel; keep what is unchanged; show beforehand what would run.

A result is kept while its notebook's cells, parameters and input files, the package's version and
the results that it depends on stay the same.
"""

import json
import os
import platform
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from joblib import cpu_count

from fopro_lab.errors import InputError, WorkError
from fopro_lab.io import commit, read_json, sha256_text, write_json
from fopro_lab.reports.execute import (
    GRACE,
    LOOK_EVERY,
    Job,
    Outcome,
    Slots,
    execute,
    only_writer,
    open_executor,
)
from fopro_lab.reports.plan import (
    Node,
    NodeReport,
    Report,
    chosen_names,
    duration,
    files_states,
    find_plan,
    missing_inputs,
    plan_nodes,
    read_plan,
)
from fopro_lab.reports.slurm import slurm_executor, slurm_options

_STILL_RUNNING_EVERY = 30.0  # seconds between two lines while nothing ends
_ORIGIN = ("Finished", "Wall time")  # facts that alter no result


def node_keys(nodes: Sequence[Node]) -> dict[str, str]:
    """Hash all that each node's result depends on, in an order in which they can be executed."""
    keys: dict[str, str] = {}
    files: dict[str, str] = {}
    places, own_version = {node.name: node.places for node in nodes}, version("fopro_lab")
    for node in nodes:
        # a table of a notebook waited for counts by that one's key: it is not written yet
        before = [places[name] for name in node.after if "out_dir" in places[name]]
        made = tuple(f"{own['out_dir']}{os.sep}" for own in before)
        free = {n: v for n, v in node.values.items() if n not in node.places}
        read = {name: value for name, value in free.items() if not str(value).startswith(made)}
        parts = {
            "cells": node.notebook.cells,
            "parameters": node.given,
            "version": own_version,
            "files": files_states(read, words=type(node.config).model_fields, known=files),
            "before": {name: keys[name] for name in node.after},
        }
        keys[node.name] = sha256_text(json.dumps(parts, sort_keys=True, default=str))
    return keys


def write_record(node: Node, *, folder: Path, key: str, took: Outcome) -> None:
    """List a node's outputs beside them; holds while all are there, with an empty key never."""
    outputs = [p for p in folder.rglob("*") if p.is_file() and p.name != ".done.json"]
    manifest = Path(node.places.get("run_dir", "")) / "manifest.json"
    outputs += [manifest] if manifest.is_file() else []
    names = sorted(os.path.relpath(path, folder) for path in outputs)
    write_json(folder / ".done.json", {**asdict(took), "key": key, "outputs": names})


def read_record(folder: Path, *, key: str = "") -> Outcome | None:
    """Return what a node took when it was last done; with a key, only if that still holds."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        record = read_json(folder / ".done.json")
        whole = record["key"] == key and all((folder / name).exists() for name in record["outputs"])
        if whole or not key:
            return Outcome("", float(record["seconds"]), str(record.get("made_by", "")))
    return None


def forget_record(folder: Path) -> None:
    """Remove a record and the files below that it lists: no old figure passes for a new one."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        for name in read_json(folder / ".done.json")["outputs"]:
            if not name.startswith(os.pardir):
                (folder / name).unlink(missing_ok=True)
    (folder / ".done.json").unlink(missing_ok=True)


def _files_of(out: Path, name: str) -> tuple[Path, Path]:
    """Name the executed notebook and the page of a node."""
    return out / "notebooks" / f"{name}.ipynb", out / "pages" / f"{name}.html"


def run_plan(
    plan: Path | str,
    *,
    out: Path | str,
    settings: Sequence[str] = (),
    files: Sequence[Path | str] = (),
    jobs: int = 0,
    executor: str | Executor = "local",
    only: Sequence[str] = (),
    again: Sequence[str] = (),
    fresh: bool = False,
    limit: float = 0.0,
    progress: bool = True,
) -> Path:
    """Execute a plan, keep every executed notebook, and write pages and an index.

    Notebooks run in the current folder, so relative paths mean what they mean on the command line.
    What is unchanged is kept: the same command goes on where the last one ended. A failed node
    keeps its notebook with the red cell, what waits for it is skipped, and the rest goes on.

    Args:
        plan: YAML file, see `Plan`, or the name of one of the package's, such as ``demo``.
        out: Folder of the report.
        settings: Texts ``name=value`` that override the plan wherever the name is known.
        files: YAML files of names and values, such as saved presets; between plan and settings.
        jobs: Notebooks at the same time; 0 is one per GPU, or one per core where there is none.
        executor: ``local``, ``dask``, ``dask://HOST:PORT``, ``slurm:`` with options of sbatch
            (``slurm:partition=gpu,time=2:00:00``), or any whose workers share this disk.
        only: Nodes, or entries of the plan, that may be executed; empty is all.
        again: Nodes, or entries, that are executed even if nothing changed, training included.
        fresh: Whether all are executed even if nothing changed, training included.
        limit: Longest time of each notebook in seconds, instead of the plan's; 0 leaves those.
        progress: Whether to write a line to stderr when a notebook starts and ends.

    Returns:
        Path of ``index.html``.

    Raises:
        InputError: If plan, settings or a notebook is wrong, before anything runs.
        WorkError: If a notebook failed, the work was stopped, or the cluster does not answer.
    """
    _check_how(jobs, executor)
    given, plan = plan, find_plan(plan)
    out, began = Path(out), time.monotonic()
    nodes = plan_nodes(plan, out=out, settings=settings, files=files, limit=limit, inputs=only)
    names = [node.name for node in nodes]
    chosen = chosen_names(nodes, only, option="--only") or set(names)
    for word in again:
        if not chosen & chosen_names(nodes, [word], option="--again"):
            raise InputError(f"--again: {word}: --only leaves it out; give --only {word}, too")
    forced = chosen & (set(names) if fresh else chosen_names(nodes, again, option="--again"))
    facts = {"Plan": str(given), "Settings": ", ".join(settings) or "none"}
    facts |= {"Presets": ", ".join(Path(file).name for file in files)} if files else {}
    facts |= {"Only": ", ".join(only)} if only else {}
    with only_writer(out) as stop:
        batch = _Batch(nodes, out, stop, chosen, forced, progress)
        stopped = batch.run(executor, jobs)
        words = read_plan(plan)
        report = Report(words.title, words.about, [batch.ended[name] for name in names], facts)
        if not _unchanged(report, out=out):
            from fopro_lab.reports.pages import write_index

            took = duration(time.monotonic() - began)
            now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
            report = replace(report, facts={**facts, "Finished": now, "Wall time": took})
            write_json(out / "report.json", asdict(report))
            write_index(report, out=out)
    states = [node.state for node in report.nodes]
    if stopped:
        ready = states.count("done") + states.count("kept")
        done = f"{ready} of {len(states)} notebooks are done"
        raise WorkError(f"stopped: {done}; the same command goes on from there")
    if failed := [node.name for node in report.nodes if node.state == "failed"]:
        skipped = f", {states.count('skipped')} skipped" if "skipped" in states else ""
        count = f"{len(failed)} of {len(states)} notebooks failed ({', '.join(failed)})"
        raise WorkError(f"{count}{skipped}; see {out / 'index.html'}")
    return out / "index.html"


def _check_how(jobs: int, executor: str | Executor) -> None:
    if jobs < 0:
        raise InputError(f"jobs: expected 0 (one per GPU, or per core) or more, got {jobs}")
    pattern = r"local|dask|dask://local|dask://[^\s/]+:\d+"
    if isinstance(executor, str) and executor.startswith("slurm:"):
        slurm_options(executor.removeprefix("slurm:"))
    elif isinstance(executor, str) and not re.fullmatch(pattern, executor):
        known = "local, dask, dask://HOST:PORT or slurm"
        raise InputError(f"executor: expected {known}, got '{executor}'")


@dataclass
class _Batch:
    """The nodes of one report: which wait, which run, and how each ended."""

    nodes: Sequence[Node]
    out: Path
    stop: Path
    chosen: Collection[str]
    forced: Collection[str]
    progress: bool

    def __post_init__(self) -> None:
        self.ended: dict[str, NodeReport] = {}
        self._running: dict[Future[Outcome], Node] = {}
        self._device: dict[str, str] = {}  # of a node
        self._began = self._said = time.monotonic()
        self._keys = node_keys(self.nodes)
        # an option of the plan is shown where the notebook declares it or is given it somewhere
        given = {name for node in self.nodes for name in node.given}
        named = [(n.notebook.path, {*n.notebook.declared, *n.given}) for n in self.nodes]
        self._own = {(path, name) for path, names in named for name in names & given}

    def run(self, where: str | Executor, jobs: int) -> bool:
        """Execute what has to be and fill ``ended``; return whether Ctrl-C ended it early."""
        waiting, stopped = self._settle(self.nodes), False
        if waiting:  # else nothing is started at all
            with ExitStack() as stack:
                if isinstance(where, str) and where.startswith("slurm:"):
                    given = slurm_executor(where.removeprefix("slurm:"), folder=self.out / "slurm")
                    where = stack.enter_context(given)
                how: dict[str, Any] = {"jobs": jobs, "most": len(waiting), "out": self.out}
                slots = stack.enter_context(open_executor(where, **how))
                try:
                    self._work(waiting, slots)
                except KeyboardInterrupt:
                    stopped = True
                    self._say("stopping: ending the notebooks at work")
                    self.stop.touch()
                    for future in self._running:
                        future.cancel()
                    wait(self._running, timeout=GRACE)
                    for node in self._running.values():
                        self._record(node, Outcome("stopped"))
        for node in self.nodes:
            if node.name not in self.ended:
                self._end(node, "stopped")
        return stopped

    def _settle(self, waiting: Sequence[Node]) -> list[Node]:
        """End all that needs no execution; return the rest, in order."""
        rest = []
        for node in waiting:
            before = [self.ended[name] for name in node.after if name in self.ended]
            broken = [b.name for b in before if b.state in ("failed", "skipped")]
            if len(before) < len(node.after):
                rest.append(node)
            elif node.left_out:
                self._end(node, "left out", reason=node.left_out)
            elif broken:
                self._end(node, "skipped", reason=f"waits for {', '.join(broken)}")
            elif (
                node.name not in self.forced
                and all(b.state == "kept" for b in before)
                and (took := kept_outcome(node, out=self.out, key=self._keys[node.name]))
            ):
                self._end(node, "kept", took)
            elif node.name in self.chosen:
                rest.append(node)
            else:
                self._end(node, "left out", reason="not among --only, and no result that holds")
        return rest

    def _work(self, waiting: list[Node], slots: Slots) -> None:
        """Submit every node as soon as all before it have ended, until all have."""
        started, running = set[str](), self._running
        while waiting or running:
            ready = [n for n in waiting if all(name in self.ended for name in n.after)]
            for node in ready[: slots.jobs - len(running) if slots.jobs else None]:
                waiting.remove(node)
                running[slots.executor.submit(execute, self._job(node, slots))] = node
            for future, node in running.items():
                if node.name not in started and future.running():
                    started.add(node.name)
                    self._say(f"start   {node.name}")
            done, _ = wait(running, timeout=LOOK_EVERY, return_when=FIRST_COMPLETED)
            for future in done:
                self._take(running.pop(future), future)
            waiting = self._settle(waiting)
            if time.monotonic() > self._said + _STILL_RUNNING_EVERY:
                names = ", ".join(node.name for f, node in running.items() if f.running())
                self._say(f"{len(self.ended)} of {len(self.nodes)} ended, at work: {names}")

    def _job(self, node: Node, slots: Slots) -> Job:
        """Clear what the node wrote the last time, and describe what is to be done."""
        (self.out / node.name).mkdir(parents=True, exist_ok=True)
        forget_record(self.out / node.name)
        stale = {node.name}
        for later in self.nodes:  # in order: whoever reads this result, directly or not
            if stale & set(later.after):
                stale.add(later.name)
                done = self.out / later.name / ".done.json"
                with suppress(OSError, ValueError, TypeError):  # the list of its files stays
                    write_json(done, {**read_json(done), "key": ""})
        executed, page = _files_of(self.out.absolute(), node.name)
        for path in (executed, page):
            path.unlink(missing_ok=True)
        if node.name in self.forced and "run_dir" in node.places:
            shutil.rmtree(node.places["run_dir"], ignore_errors=True)
        taken = [self._device[other.name] for other in self._running.values()]
        device = self._device[node.name] = min(slots.devices, key=taken.count, default="")
        how = {"limit": node.limit, "threads": slots.threads, "device": device}
        return Job.of(node, executed=executed, page=page, stop=self.stop, **how)

    def _take(self, node: Node, future: Future[Outcome]) -> None:
        """Note how a node ended; whatever its worker suffered is this notebook's failure alone."""
        try:
            run = {**node.given, **node.places}.get("run_dir", "")
            took = replace(future.result(), made_by=_made_by(run))
        except CancelledError:
            took = Outcome("lost: the scheduler is gone, or the task was cancelled there")
        except Exception as error:
            took = Outcome(f"{type(error).__name__}: {error}".splitlines()[0])
        self._record(node, took)
        self._end(node, "failed" if took.failure else "done", took, took.failure)

    def _record(self, node: Node, took: Outcome) -> None:
        key = "" if took.failure else self._keys[node.name]
        with suppress(OSError, WorkError):  # a full disk: it is executed again
            write_record(node, folder=self.out / node.name, key=key, took=took)

    def _end(self, node: Node, state: str, took: Outcome | None = None, reason: str = "") -> None:
        took = took or Outcome("")
        page = f"pages/{node.name}.html"
        values = {**node.values, **node.places}.items()
        shown = state in ("done", "kept", "failed") and (self.out / page).is_file()
        about: dict[str, Any] = {"name": node.name, "entry": node.entry, "folder": node.name}
        about |= {"notebook": node.notebook.shown, "state": state, "reason": reason}
        about |= {"made_by": took.made_by, "seconds": took.seconds, "page": page if shown else ""}
        about["parameters"] = {k: v for k, v in values if (node.notebook.path, k) in self._own}
        about["log"] = os.path.relpath(took.log, self.out) if took.log else ""
        self.ended[node.name] = NodeReport(**about)
        words = f"{state:7} {node.name}"
        if took.seconds and state != "kept":
            words += f" in {duration(took.seconds)}"
        self._say(f"{words}: {reason}" if reason else words)

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        if self.progress:
            minutes, seconds = divmod(int(self._said - self._began), 60)
            sys.stderr.write(f"{minutes:3d}:{seconds:02d}  {line}\n")


def kept_outcome(node: Node, *, out: Path, key: str) -> Outcome | None:
    """Return what a node took, if its result in a folder still holds and is whole."""
    whole = all(path.is_file() for path in _files_of(out, node.name))
    return read_record(out / node.name, key=key) if whole else None


def _unchanged(report: Report, *, out: Path) -> bool:
    """Whether the pages that lie there say the same, and nothing was executed."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        old = read_json(out / "report.json")
        old["facts"] = {k: v for k, v in old["facts"].items() if k not in _ORIGIN}
        for node in old["nodes"]:
            node["state"] = "kept" if node["state"] == "done" else node["state"]
        same = old == json.loads(json.dumps(asdict(report), default=str))
        quiet = all(node.state in ("kept", "left out") for node in report.nodes)
        return same and quiet and (out / "index.html").is_file()
    return False


@cache
def _origin() -> str:
    """Name commit, versions and machine of this process."""
    packages = ("fopro_lab", "torch", "torchvision", "timm", "numpy", "papermill")
    versions = [f"Python {platform.python_version()}", *(f"{p} {version(p)}" for p in packages)]
    machine = f"{platform.system()} {platform.machine()}, {cpu_count()} cores"
    return ", ".join([f"commit {commit() or 'unknown (no git checkout)'}", *versions, machine])


def _made_by(run_dir: str) -> str:
    """Name what executed a notebook, and what trained its run: that may be older."""
    with suppress(OSError, ValueError):
        run = read_json(Path(run_dir) / "manifest.json")
        trained = f"commit {run.get('commit') or 'unknown'} on {run.get('device', 'unknown')}"
        return f"{_origin()}; run trained at {trained}"
    return _origin()


def dry_run(
    plan: Path | str,
    *,
    out: Path | str,
    settings: Sequence[str] = (),
    files: Sequence[Path | str] = (),
    jobs: int = 0,
    executor: str | Executor = "local",
    limit: float = 0.0,
) -> tuple[list[str], list[str]]:
    """Check all that `run_plan` checks, list every missing input, execute and write nothing.

    Returns what executing would mean, graph and time as lines, and what is missing.
    """
    _check_how(jobs, executor)
    plan, out = find_plan(plan), Path(out)
    nodes = plan_nodes(plan, out=out, inputs=None, settings=settings, files=files, limit=limit)
    keys, kept = node_keys(nodes), set[str]()
    for node in nodes:
        if kept.issuperset(node.after) and kept_outcome(node, out=out, key=keys[node.name]):
            kept |= set() if node.left_out else {node.name}
    active = [node for node in nodes if not node.left_out]
    missing = (f"missing: {line}" for node in active for line in missing_inputs(node.config))
    problems = list(dict.fromkeys(missing))
    lines = [f"{read_plan(plan).title}: {len(nodes)} notebooks", *_graph(nodes, kept)]
    if kept:
        lines.append(f"kept: {len(kept)} of {len(nodes)} notebooks, whose results still hold")
    to_do = [node for node in active if node.name not in kept]
    if last := [took for node in to_do if (took := read_record(out / node.name))]:
        rest = f"; unknown for {len(to_do) - len(last)}" if len(last) < len(to_do) else ""
        total = duration(sum(took.seconds for took in last))
        lines.append(f"time: {total} one after another, as {len(last)} took last time{rest}")
    elif to_do:
        lines.append(f"time: unknown, no earlier report in {out}")
    return [*lines, *problems], problems


def _graph(nodes: Sequence[Node], kept: Collection[str]) -> Iterator[str]:
    """Yield a line per node: name, notebook, what it waits for, what is its own."""
    names = max(len(node.name) for node in nodes)
    books = max(len(node.notebook.shown) for node in nodes)
    entry_of = {node.name: node.entry for node in nodes}
    books_of = Counter(node.notebook.path for node in nodes)
    alike = Counter(
        (n.notebook.path, name, repr(value)) for n in nodes for name, value in n.given.items()
    )
    for number, node in enumerate(nodes, start=1):
        waits = dict.fromkeys(entry_of[name] for name in node.after)
        path = node.notebook.path
        facts = [
            f"{name} = {value}"
            for name, value in node.given.items()
            if alike[path, name, repr(value)] < books_of[path]
        ]
        facts += [f"limit {duration(node.limit)}"] if node.limit else []
        facts += ["kept"] if node.name in kept else []
        facts += [f"left out: {node.left_out}"] if node.left_out else []
        parts = [f"after {', '.join(waits)}"] if waits else []
        parts += [", ".join(facts)] if facts else []
        start = f"{number:3d}  {node.name:<{names}}  {node.notebook.shown:<{books}}"
        yield f"{start}  {'; '.join(parts)}".rstrip()
