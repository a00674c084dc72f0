"""The nodes of one report at work: in parallel processes, in the order of the graph."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from fopro_lab.data.packing import cache_folder
from fopro_lab.errors import WorkError
from fopro_lab.lab.execute import Job
from fopro_lab.lab.index import NodeReport
from fopro_lab.lab.nodes import Node
from fopro_lab.lab.records import forget_record, node_key, read_record, write_record

_STILL_RUNNING_EVERY = 30.0  # seconds between two lines while nothing ends


class Batch:
    """Who waits, who runs, who ended how.

    Args:
        nodes: In an order in which they can be executed.
        out: Folder of the report.
        jobs: Notebooks at the same time, at least 1; each gets its share of the cores.
        progress: Whether to say on stderr what starts and ends.
        only: Names of the nodes that may be executed; empty is all. The others are taken as they
            lie in the folder.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        out: Path,
        *,
        jobs: int,
        progress: bool,
        only: Collection[str] = (),
    ) -> None:
        self.nodes, self.out, self.jobs, self.progress = nodes, out, jobs, progress
        self.only = set(only)
        self.ended: dict[str, NodeReport] = {}
        self.keys: dict[str, str] = {}
        self.working: set[str] = set()
        self.children: set[subprocess.Popen] = set()
        self.stopping = threading.Event()
        self.began = time.monotonic()

    def run(self) -> bool:
        """Execute everything and fill ``ended``, in the order of the nodes.

        Returns:
            Whether Ctrl-C ended it early; what was at work then is marked as stopped.
        """
        files: dict[str, str] = {}
        for node in self.nodes:
            self.keys[node.name] = node_key(node, before=self.keys, files=files)
        waiting = list(self.nodes)
        running: dict[Future[NodeReport], Node] = {}
        pool = ThreadPoolExecutor(self.jobs)
        try:
            while waiting or running:
                for node in [n for n in waiting if all(a in self.ended for a in n.after)]:
                    waiting.remove(node)
                    if not self._settle(node):
                        running[pool.submit(self._work, node)] = node
                self._wait(running)
        except KeyboardInterrupt:
            self._stop()
        pool.shutdown()
        for future in running:
            if future.result().state != "stopped":
                self._end(future.result())
        for node in self.nodes:
            if node.name not in self.ended:
                self._end(self._report(node, "stopped"))
        self.ended = {node.name: self.ended[node.name] for node in self.nodes}
        return self.stopping.is_set()

    def _settle(self, node: Node) -> bool:
        """End a node without executing it: a predecessor failed, nothing changed, not asked for."""
        before = [self.ended[name] for name in node.after]
        broken = [b.name for b in before if b.state in ("failed", "skipped")]
        if broken:
            self._end(self._report(node, "skipped", reason=f"waits for {', '.join(broken)}"))
            return True
        seconds = read_record(folder=self.out / node.name, key=self.keys[node.name])
        whole = self._page(node).is_file() and self._executed(node).is_file()
        if seconds is None or not whole or any(b.state != "kept" for b in before):
            if not self.only or node.name in self.only:
                return False
            self._end(self._report(node, "left out"))
            return True
        self._end(self._report(node, "kept", seconds=seconds))
        return True

    def _wait(self, running: dict[Future[NodeReport], Node]) -> None:
        """Take in what has ended; say now and then what still runs."""
        if not running:
            return
        done, _ = wait(running, timeout=_STILL_RUNNING_EVERY, return_when=FIRST_COMPLETED)
        for future in done:
            self._end(future.result())
            del running[future]
        if not done:
            names = ", ".join(sorted(self.working))
            self._say(f"{len(self.ended)} of {len(self.nodes)} ended, at work: {names}")

    def _work(self, node: Node) -> NodeReport:
        """Execute one node (in a thread); a full disk is this node's failure, not the batch's."""
        if self.stopping.is_set():
            return self._report(node, "stopped")
        self.working.add(node.name)
        try:
            return self._execute(node)
        except (WorkError, OSError) as error:
            return self._report(node, "failed", reason=str(error))
        finally:
            self.working.discard(node.name)

    def _execute(self, node: Node) -> NodeReport:
        self._say(f"start   {node.name}")
        folder, began = self.out / node.name, time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        forget_record(folder=folder)
        for path in (self._executed(node), self._page(node)):
            path.unlink(missing_ok=True)
        job = Job(
            name=node.name,
            notebook=_short(node.notebook),
            executed=_short(self._executed(node)),
            page=_short(self._page(node)),
            parameters={**node.parameters, **node.places},
        )
        failure = self._run_child(job)
        if self.stopping.is_set():
            return self._report(node, "stopped")
        seconds = time.monotonic() - began
        if failure:
            return self._report(node, "failed", seconds=seconds, reason=failure)
        write_record(node, folder=folder, key=self.keys[node.name], seconds=seconds)
        return self._report(node, "done", seconds=seconds)

    def _run_child(self, job: Job) -> str:
        """Start the process, hand it the job, and return its failure or an empty text."""
        child = subprocess.Popen(
            [sys.executable, "-m", "fopro_lab.lab.execute"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=_environment(threads=max(1, cores() // self.jobs)),
            start_new_session=True,  # Ctrl-C goes to this process, which ends the children
        )
        self.children.add(child)
        assert child.stdin is not None and child.stdout is not None
        with child:
            child.stdin.write(job.to_json() + "\n")
            child.stdin.flush()
            lines = child.stdout.read().strip().splitlines() or [""]
        self.children.discard(child)
        try:
            return json.loads(lines[-1])["failure"]
        except (ValueError, KeyError, TypeError):
            return f"its process ended without a result (status {child.returncode}): {lines[-1]}"

    def _stop(self) -> None:
        self.stopping.set()
        self._say("stopping: ending the notebooks at work")
        for child in list(self.children):
            child.terminate()

    def _end(self, report: NodeReport) -> None:
        self.ended[report.name] = report
        reason = f": {report.reason}" if report.reason else ""
        took = f" in {report.time}" if report.state in ("done", "failed") else ""
        self._say(f"{report.state:7} {report.name}{took}{reason}")

    def _report(
        self, node: Node, state: str, *, seconds: float = 0.0, reason: str = ""
    ) -> NodeReport:
        shown = state in ("done", "kept", "failed") and self._page(node).is_file()
        return NodeReport(
            name=node.name,
            entry=node.entry,
            state=state,
            seconds=seconds,
            folder=node.name,
            page=f"pages/{node.name}.html" if shown else "",
            reason=reason,
            parameters=", ".join(f"{key} = {value}" for key, value in node.parameters.items()),
        )

    def _executed(self, node: Node) -> Path:
        return self.out / "notebooks" / f"{node.name}.ipynb"

    def _page(self, node: Node) -> Path:
        return self.out / "pages" / f"{node.name}.html"

    def _say(self, line: str) -> None:
        if self.progress:
            minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
            sys.stderr.write(f"{minutes:3d}:{seconds:02d}  {line}\n")
            sys.stderr.flush()


def _environment(*, threads: int) -> dict[str, str]:
    """The children's environment: their share of the cores, figures inlined, imports compiled once.

    Where bytecode is not to be written beside the source, every process would compile all imports
    anew, ten seconds each; so it is kept with the packs instead.
    """
    environment = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
    if environment.pop("PYTHONDONTWRITEBYTECODE", ""):
        environment.setdefault("PYTHONPYCACHEPREFIX", str(cache_folder().absolute() / "bytecode"))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = str(threads)
    return {**environment, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def _short(path: Path) -> str:
    """A path as seen from the current folder where it lies below, else whole."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def cores() -> int:
    """Count the cores that this process may use.

    Example:
        >>> cores() >= 1
        True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
