"""``run_plan``: execute a plan's notebooks in parallel processes and write the index."""

import json
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock, Timeout

from fopro_lab.errors import InputError, WorkError
from fopro_lab.files import atomic_path, write_json
from fopro_lab.lab.batch import Batch, cores
from fopro_lab.lab.index import Report, duration, index_page
from fopro_lab.lab.nodes import chosen_names, plan_nodes
from fopro_lab.lab.plans import read_plan


def run_plan(
    plan: Path | str,
    *,
    out: Path | str,
    settings: Sequence[str] = (),
    jobs: int = 0,
    only: Sequence[str] = (),
    progress: bool = True,
) -> Path:
    """Execute a plan, keep every executed notebook, and write pages and an index.

    Notebooks run in the caller's current folder, so relative paths in parameters mean what they
    mean on the command line. A node whose notebook, parameters, package source, input files and
    predecessors are unchanged is kept from the last time. A failed node keeps its notebook with the
    red cell, what waits for it is skipped, and the rest goes on.

    Args:
        plan: YAML file, see `Plan`.
        out: Folder of the report.
        settings: Texts ``name=value`` that override the plan wherever the name is declared.
        jobs: Notebooks at the same time; 0 is one a core.
        only: Nodes, or entries of the plan, that may be executed; empty is all. What they wait for
            is taken as it lies in the folder.
        progress: Whether to write a line to stderr when a notebook starts and ends.

    Returns:
        Path of ``index.html``.

    Raises:
        InputError: If plan, settings or a notebook is wrong, before anything runs.
        WorkError: If a notebook failed or the work was stopped; the index is written all the same.

    Example:
        >>> run_plan("nowhere.yaml", out="reports/nowhere")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.yaml: no such file
    """
    if jobs < 0:
        raise InputError(f"jobs: expected 0 (one a core) or more, got {jobs}")
    out, started = Path(out), time.monotonic()
    nodes, words = plan_nodes(plan, out=out, settings=settings), read_plan(plan)
    with _only_writer(out):
        batch = Batch(
            nodes,
            out,
            jobs=min(jobs or cores(), len(nodes)),
            progress=progress,
            only=chosen_names(nodes, only),
        )
        stopped = batch.run()
        facts = {
            "Plan": str(plan),
            "Settings": ", ".join(settings) or "none",
            **({"Only": ", ".join(only)} if only else {}),
            **_provenance(out),
            "Finished": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
            "Wall time": f"{duration(time.monotonic() - started)}, {batch.jobs} at a time",
        }
        report = Report(words.title, words.about, list(batch.ended.values()), facts)
        write_json(out / "report.json", report.to_json())
        with atomic_path(out / "index.html") as temporary:
            temporary.write_text(index_page(report, out=out), encoding="utf-8")
    _raise_if_incomplete(report, index=out / "index.html", stopped=stopped)
    return out / "index.html"


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
    root = Path(__file__).resolve().parents[2]
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=10"]
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
