"""``run_plan``: execute a plan's notebooks in parallel processes and write the index."""

import json
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fopro_lab.errors import InputError, WorkError
from fopro_lab.files import write_json
from fopro_lab.lab.asking import Request, asked, resumed, write_request
from fopro_lab.lab.batch import Batch
from fopro_lab.lab.executors import executor_from
from fopro_lab.lab.executors.base import check_executor
from fopro_lab.lab.nodes import chosen_names, plan_nodes
from fopro_lab.lab.outcomes import Report, duration
from fopro_lab.lab.plans import CHECKOUT, read_plan
from fopro_lab.lab.runners import cores
from fopro_lab.lab.states import page_hash


def run_plan(
    plan: Path | str,
    *,
    out: Path | str,
    settings: Sequence[str] = (),
    files: Sequence[Path | str] = (),
    jobs: int = 0,
    executor: str = "local",
    only: Sequence[str] = (),
    again: Sequence[str] = (),
    fresh: bool = False,
    limit: float = 0.0,
    resume: bool = False,
    progress: bool = True,
) -> Path:
    """Execute a plan, keep every executed notebook, and write pages and an index.

    Notebooks run in the caller's current folder, so relative paths in parameters mean what they
    mean on the command line. A node whose notebook, parameters, package source, input files and
    predecessors are unchanged is kept from the last time. A failed node keeps its notebook with the
    red cell, what waits for it is skipped, and the rest goes on. Where nothing at all changed, the
    report is left as it lies.

    Args:
        plan: YAML file, see `Plan`.
        out: Folder of the report.
        settings: Texts ``name=value`` that override the plan wherever the name is declared.
        files: Pin files: YAML mappings of knobs, beneath the settings, above the plan.
        jobs: Notebooks at the same time; 0 is one a GPU, or one a core where there is none.
        executor: ``local``, ``dask`` for workers of this machine, or ``dask://HOST:PORT``.
        only: Nodes, or entries of the plan, that may be executed; empty is all. What they wait for
            is taken as it lies in the folder.
        again: Nodes, or entries, that are executed even if nothing changed. A training run that
            lies complete in ``runs/`` is taken up, not trained again.
        fresh: Whether all are executed even if nothing changed.
        limit: Longest time of each notebook in seconds, instead of the plan's; 0 leaves those.
        resume: Whether to take up the settings and pin files of the report that lies in the
            folder; those given now come on top.
        progress: Whether to write a line to stderr when a notebook starts and ends.

    Returns:
        Path of ``index.html``.

    Raises:
        InputError: If plan, settings or a notebook is wrong, before anything runs.
        WorkError: If a notebook failed or the work was stopped (the index is written all the
            same), or the cluster does not answer.

    Example:
        >>> run_plan("nowhere.yaml", out="reports/nowhere")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.yaml: no such file
    """
    if jobs < 0:
        raise InputError(f"jobs: expected 0 (one a core) or more, got {jobs}")
    check_executor(executor)
    out, started = Path(out), time.monotonic()
    request = asked(plan, settings=settings, files=files)
    request = resumed(request, out=out) if resume else request
    nodes = plan_nodes(plan, out=out, settings=request.settings, files=request.files)
    nodes = [replace(node, limit=limit) for node in nodes] if limit else nodes
    names = {node.name for node in nodes}
    with _only_writer(out):
        batch = Batch(
            nodes,
            out,
            executor=lambda: executor_from(executor, jobs=jobs, most=len(nodes), out=out),
            progress=progress,
            only=chosen_names(nodes, only),
            again=names if fresh else chosen_names(nodes, again, option="--again"),
        )
        facts = _asked_facts(request, only)
        write_request(request, out=out)
        stopped = batch.run()
        report = Report(*_words(plan), list(batch.ended.values()), facts)
        if not _unchanged(report, out=out):
            facts |= _provenance(out)
            facts["Finished"] = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
            at_once = f", {batch.jobs} at a time" if batch.jobs else ""
            facts["Wall time"] = f"{duration(time.monotonic() - started)}{at_once}"
            _write_pages(replace(report, facts=facts), out=out)
    _raise_if_incomplete(report, index=out / "index.html", stopped=stopped)
    return out / "index.html"


def _words(plan: Path | str) -> tuple[str, str]:
    words = read_plan(plan)
    return words.title, words.about


def _asked_facts(request: Request, only: Sequence[str]) -> dict[str, str]:
    """What the caller asked for, as text."""
    pins = ", ".join(Path(file).name for file in request.files)
    return {
        "Plan": request.plan,
        "Settings": ", ".join(request.settings) or "none",
        **({"Pinned": pins} if pins else {}),
        **({"Only": ", ".join(only)} if only else {}),
    }


def _unchanged(report: Report, *, out: Path) -> bool:
    """Whether the pages that lie there say the same: nothing was executed, nothing is otherwise."""
    try:
        old = json.loads((out / "report.json").read_text(encoding="utf-8"))
        told = [_lasting(node) for node in old["nodes"]]
        same = {key: old["facts"].get(key) for key in report.facts} == report.facts
        same = same and ("Only" in old["facts"]) == ("Only" in report.facts)
        same = same and old["made_by"] == page_hash() and (out / "index.html").is_file()
        words = (old["title"], old["about"]) == (report.title, report.about)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    now = report.to_json()["nodes"]
    nothing_done = all(node["state"] in ("kept", "left out") for node in now)
    return nothing_done and same and words and told == [_lasting(node) for node in now]


def _lasting(node: dict[str, Any]) -> dict[str, Any]:
    """A node's report without the difference between done now and done before."""
    return node | {"state": "kept" if node["state"] == "done" else node["state"]}


def _write_pages(report: Report, *, out: Path) -> None:
    from fopro_lab.lab.index import write_index  # pandas comes with it

    write_json(out / "report.json", {**report.to_json(), "made_by": page_hash()})
    write_index(report, out=out)


@contextmanager
def _only_writer(out: Path) -> Iterator[None]:
    """Hold the report's folder; two reports in one folder would mix their pages."""
    lock = FileLock(out / ".lock", timeout=0)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise WorkError(
            f"{out}: another report is being written there; wait, or choose another --out"
        ) from None
    except OSError as error:
        raise InputError(
            f"out: expected a folder to write to, got {out} ({error.strerror})"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _raise_if_incomplete(report: Report, *, index: Path, stopped: bool) -> None:
    states = [node.state for node in report.nodes]
    if stopped:
        ready = states.count("done") + states.count("kept")
        raise WorkError(
            f"stopped: {ready} of {len(states)} notebooks are done and kept; "
            "the same command goes on from there"
        )
    failed = [node.name for node in report.nodes if node.state == "failed"]
    if failed:
        skipped = f", {states.count('skipped')} skipped" if "skipped" in states else ""
        names = f"{len(failed)} of {len(states)} notebooks failed ({', '.join(failed)})"
        raise WorkError(f"{names}{skipped}; see {index}")


def _provenance(out: Path) -> dict[str, str]:
    """Commit, versions and machine, as text; devices are those that the runs name."""
    git = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown (no git checkout)"
    devices = set()
    for manifest in out.glob("runs/*/manifest.json"):
        devices.add(str(json.loads(manifest.read_text(encoding="utf-8")).get("device", "unknown")))
    trained = f", trained on {' and '.join(sorted(devices))}" if devices else ""
    packages = ("fopro_lab", "torch", "torchvision", "timm", "numpy", "papermill")
    return {
        "Commit": commit,
        "Versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{p} {version(p)}" for p in packages)]
        ),
        "Machine": f"{platform.system()} {platform.machine()}, {cores()} cores{trained}",
    }
