"""The nodes of one report at work: in parallel, in the order of the graph."""

import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from fopro_lab.errors import WorkError
from fopro_lab.lab.execute import Job
from fopro_lab.lab.executors import Executor
from fopro_lab.lab.nodes import Node
from fopro_lab.lab.outcomes import NodeReport
from fopro_lab.lab.records import Record, forget_record, node_key, read_record, write_record

_STILL_RUNNING_EVERY = 30.0  # seconds between two lines while nothing ends


class Batch:
    """Who waits, who runs, who ended how.

    Args:
        nodes: In an order in which they can be executed.
        out: Folder of the report.
        executor: Makes what executes them; called when the first one is to be executed.
        progress: Whether to say on stderr what starts and ends.
        only: Names of the nodes that may be executed; empty is all. The others are taken as they
            lie in the folder.
        again: Names of the nodes that are executed even if nothing changed.

    Attributes:
        ended: How each node ended, by name.
        jobs: Notebooks at the same time; 0 while none had to be executed.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        out: Path,
        *,
        executor: Callable[[], Executor],
        progress: bool,
        only: Collection[str] = (),
        again: Collection[str] = (),
    ) -> None:
        self.nodes, self.out, self.progress = nodes, out, progress
        self.only, self.again = set(only), set(again)
        self.ended: dict[str, NodeReport] = {}
        self.jobs = 0
        self._make = executor
        self._executor: Executor | None = None
        self._keys: dict[str, str] = {}
        self._working: set[str] = set()
        self._stopping = threading.Event()
        self._began = time.monotonic()

    def run(self) -> bool:
        """Execute everything and fill ``ended``, in the order of the nodes.

        Returns:
            Whether Ctrl-C ended it early; what was at work then is marked as stopped.

        Raises:
            WorkError: If there is nothing that could execute a notebook.
        """
        files: dict[str, str] = {}
        for node in self.nodes:
            self._keys[node.name] = node_key(node, before=self._keys, files=files)
        waiting = list(self.nodes)
        running: dict[Future[NodeReport], Node] = {}
        pool: ThreadPoolExecutor | None = None
        try:
            while waiting or running:
                for node in [n for n in waiting if all(a in self.ended for a in n.after)]:
                    waiting.remove(node)
                    if not self._settle(node):
                        pool = pool or self._open()
                        running[pool.submit(self._work, node)] = node
                self._wait(running)
        except KeyboardInterrupt:
            self._stop()
        finally:
            self._close(pool)
        for future in running:
            if future.result().state != "stopped":
                self._end(future.result())
        for node in self.nodes:
            if node.name not in self.ended:
                self._end(self._report(node, "stopped"))
        self.ended = {node.name: self.ended[node.name] for node in self.nodes}
        return self._stopping.is_set()

    def _open(self) -> ThreadPoolExecutor:
        self._executor = self._make()
        self.jobs = self._executor.jobs
        return ThreadPoolExecutor(self.jobs)

    def _close(self, pool: ThreadPoolExecutor | None) -> None:
        if pool is not None:
            pool.shutdown()
        if self._executor is not None:
            self._executor.close()

    def _settle(self, node: Node) -> bool:
        """End a node without executing it: left out, a predecessor failed, nothing changed."""
        if node.left_out:
            self._end(self._report(node, "left out", reason=node.left_out))
            return True
        before = [self.ended[name] for name in node.after]
        broken = [b.name for b in before if b.state in ("failed", "skipped")]
        if broken:
            self._end(self._report(node, "skipped", reason=f"waits for {', '.join(broken)}"))
            return True
        took = read_record(folder=self.out / node.name, key=self._keys[node.name])
        whole = self._page(node).is_file() and self._executed(node).is_file()
        changed = took is None or not whole or any(b.state != "kept" for b in before)
        if changed or node.name in self.again:
            if not self.only or node.name in self.only:
                return False
            self._end(self._report(node, "left out"))
            return True
        self._end(self._report(node, "kept", took=took))
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
            names = ", ".join(sorted(self._working))
            self._say(f"{len(self.ended)} of {len(self.nodes)} ended, at work: {names}")

    def _work(self, node: Node) -> NodeReport:
        """Execute one node (in a thread); a full disk is this node's failure, not the batch's."""
        if self._stopping.is_set():
            return self._report(node, "stopped")
        self._working.add(node.name)
        try:
            return self._execute(node)
        except (WorkError, OSError) as error:
            return self._report(node, "failed", reason=str(error))
        except Exception as error:  # one notebook's bad luck; the others' work must not be lost
            return self._report(node, "failed", reason=f"{type(error).__name__}: {error}")
        finally:
            self._working.discard(node.name)

    def _execute(self, node: Node) -> NodeReport:
        assert self._executor is not None
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
            limit=node.limit,
        )
        outcome = self._executor.work(job)
        if self._stopping.is_set():
            return self._report(node, "stopped")
        seconds = outcome.seconds or time.monotonic() - began
        took = Record(seconds, outcome.memory, outcome.attempts)
        if outcome.failure:
            return self._report(node, "failed", took=took, reason=outcome.failure)
        write_record(node, folder=folder, key=self._keys[node.name], took=took)
        return self._report(node, "done", took=took)

    def _stop(self) -> None:
        self._stopping.set()
        self._say("stopping: ending the notebooks at work")
        if self._executor is not None:
            self._executor.stop()

    def _end(self, report: NodeReport) -> None:
        self.ended[report.name] = report
        reason = f": {report.reason}" if report.reason else ""
        took = f" in {report.time}" if report.state in ("done", "failed") and report.time else ""
        peak = f", {report.peak}" if took and report.peak else ""
        self._say(f"{report.state:7} {report.name}{took}{peak}{reason}")

    def _report(
        self, node: Node, state: str, *, took: Record | None = None, reason: str = ""
    ) -> NodeReport:
        shown = state in ("done", "kept", "failed") and self._page(node).is_file()
        took = took or Record(0.0)
        return NodeReport(
            name=node.name,
            entry=node.entry,
            state=state,
            seconds=took.seconds,
            folder=node.name,
            page=f"pages/{node.name}.html" if shown else "",
            reason=reason,
            parameters=", ".join(f"{key} = {value}" for key, value in node.parameters.items()),
            memory=took.memory,
            attempts=took.attempts,
        )

    def _executed(self, node: Node) -> Path:
        return self.out / "notebooks" / f"{node.name}.ipynb"

    def _page(self, node: Node) -> Path:
        return self.out / "pages" / f"{node.name}.html"

    def _say(self, line: str) -> None:
        if self.progress:
            minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
            sys.stderr.write(f"{minutes:3d}:{seconds:02d}  {line}\n")
            sys.stderr.flush()


def _short(path: Path) -> str:
    """A path as seen from the current folder where it lies below, else whole."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
