"""One notebook after the other, each in a process of its own: ``python -m fopro_lab.lab.execute``.

A process a notebook, because a kernel that is killed for memory must take nothing else along. The
imports are paid once: this process makes them and forks a copy of itself for each job.
"""

import json
import os
import select
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fopro_lab.errors import WorkError
from fopro_lab.files import atomic_path
from fopro_lab.lab.kernels import Watch, kernel_class, kernel_pid
from fopro_lab.lab.outcomes import duration


@dataclass(frozen=True)
class Job:
    """What to execute and where the results go; paths are seen from the current folder.

    ``notebook`` is the source, ``executed`` and ``page`` are written, ``parameters`` are injected.
    ``limit`` is the longest time in seconds, 0 for none.
    """

    name: str
    notebook: str
    executed: str
    page: str
    parameters: dict[str, Any] = field(default_factory=dict)
    limit: float = 0.0

    def to_json(self) -> str:
        """Return the job as one line, the form in which the process is told."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Outcome:
    """How a notebook ended.

    Attributes:
        failure: Empty when every cell went through, else one line: the error of the red cell.
        seconds: From the start of its kernel to its page.
        memory: Peak of its processes, bytes; 0 where it is not known.
        attempts: How often its kernel was started.
    """

    failure: str
    seconds: float = 0.0
    memory: int = 0
    attempts: int = 1


def execute(job: Job) -> Outcome:
    """Execute a notebook with papermill and write the executed copy and its page.

    Both are written whole, and also when a cell fails: then with its red cell. A kernel that does
    not start is started once more.

    Args:
        job: What and where.

    Returns:
        How it ended; a full disk and a kernel that never starts are failures as well.
    """
    from nbclient.exceptions import DeadKernelError

    began, memory = time.monotonic(), 0
    for attempt in (1, 2):
        made: list[Any] = []
        # the folder's name is short: a socket's path may have 107 characters
        with TemporaryDirectory(prefix="fopro-", ignore_cleanup_errors=True) as folder:
            try:
                with Watch(job.limit, lambda made=made: kernel_pid(made)) as watch:  # type: ignore[misc]
                    live, failure = _run_cells(job, Path(folder), made, watch)
                _write(job, live)
            except (WorkError, OSError) as error:
                failure = str(error)
            except RuntimeError as error:
                memory = watch.memory
                if not isinstance(error, DeadKernelError) and attempt == 1:
                    continue
                failure = f"{job.name}: the kernel does not start ({error})"
            memory = max(memory, watch.memory)
            return Outcome(failure, time.monotonic() - began, memory, attempt)
    raise AssertionError("unreachable")


def _run_cells(job: Job, folder: Path, made: list[Any], watch: Watch) -> tuple[Any, str]:
    """Return the executed notebook, marked where it broke, and its failure."""
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    live, failure = folder / "live.ipynb", ""
    try:
        papermill.execute_notebook(
            job.notebook,
            live,
            parameters=job.parameters,
            kernel_name="python3",
            language="python",  # a stripped notebook may not say it
            progress_bar=False,
            kernel_manager_class=kernel_class(folder, made),
        )
    except papermill.PapermillExecutionError as error:
        failure = f"{error.ename}: {error.evalue}".strip().splitlines()[0]
    except DeadKernelError:
        failure = "the kernel died in the middle of a cell; was the memory full?"
        failure = _late(job) if watch.late else failure
        _mark_dead_cell(live, failure)
    notebook = nbformat.read(live, as_version=4)
    if watch.late and failure:
        failure = _late(job)
        _mark_late_cell(notebook, failure)
    return notebook, failure


def _write(job: Job, notebook: Any) -> None:
    import nbformat

    from fopro_lab.lab.pages import write_notebook_page

    notebook.metadata.papermill.update(input_path=job.notebook, output_path=job.executed)
    with atomic_path(job.executed) as temporary, open(temporary, "w", encoding="utf-8") as file:
        nbformat.write(notebook, file)
    write_notebook_page(notebook, job.page, name=job.name)


def _late(job: Job) -> str:
    return f"the time limit of {duration(job.limit)} was reached"


def _mark_late_cell(notebook: Any, failure: str) -> None:
    """Say in the red cell that it was interrupted by the limit, by no hand."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    for output in outputs:
        if output.output_type == "error" and output.ename == "KeyboardInterrupt":
            output.update(ename="TimeLimit", evalue=failure)
            output.traceback.append(f"TimeLimit: {failure}")


def _mark_dead_cell(live: Path, failure: str) -> None:
    """Give the cell in which the kernel died an error of its own; papermill leaves it blank."""
    import nbformat
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import raise_for_execution_errors

    notebook = nbformat.read(live, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    done = [c for c in code if c.metadata.papermill.status == "completed" and c.execution_count]
    cell = code[min(len(done), len(code) - 1)]
    cell.outputs.append(
        nbformat.v4.new_output("error", ename="DeadKernel", evalue=failure, traceback=[failure])
    )
    try:
        raise_for_execution_errors(notebook, str(live))
    except PapermillExecutionError:
        pass  # it has written the notebook with its marks


def _import_ahead() -> None:
    """Import all that every job needs, before the first one is told."""
    # building this parser of web addresses takes 1.7 s; jsonschema does without, notebooks as well
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    import nbconvert.exporters
    import papermill
    from ipykernel import kernelspec
    from jupyter_client import manager
    from nbformat.v4 import new_code_cell, new_notebook
    from psutil import Process

    from fopro_lab.lab.pages import notebook_page

    assert all((nbconvert, papermill, kernelspec, manager, Process))
    # the first page loads lexers and filters, a second's worth
    notebook_page(new_notebook(cells=[new_code_cell("print(1)")]), name="first")


def _work(job: Job, result: int, life: int) -> None:
    """Execute a job in the forked copy and end it; it ends as well when the first process does."""
    threading.Thread(target=lambda: (os.read(life, 1), os._exit(1)), daemon=True).start()
    try:
        outcome = execute(job)
    except Exception as error:
        outcome = Outcome(f"{job.name}: {type(error).__name__}: {error}")
    with os.fdopen(result, "w") as pipe:
        pipe.write(json.dumps(asdict(outcome)))
    sys.stdout.flush()
    os._exit(0)


def _fork(job: Job, life: tuple[int, int]) -> str:
    """Execute one job in a copy of this process; its result as a line."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.close(life[1])
        try:
            _work(job, write, life[0])
        finally:
            os._exit(1)  # never back into the loop of the first process
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        ready, _, _ = select.select([0, read], [], [])
        if 0 in ready:  # whoever told the job is gone, and so is this process; the copy follows
            os._exit(1)
        result = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return result or json.dumps({"status": os.waitstatus_to_exitcode(status)})


def main() -> None:
    """Execute the jobs on stdin, one a line; each is answered by a line with its `Outcome`."""
    _import_ahead()
    life = os.pipe()
    jobs = open(0, "rb", buffering=0)  # unbuffered, so that waiting for its end sees all of it
    for line in iter(jobs.readline, b""):
        result = _fork(Job(**json.loads(line)), life)
        sys.stdout.write("\n" + result + "\n")
        sys.stdout.flush()
    os._exit(0)  # taking down what was imported takes 0.2 s, which the report would wait


if __name__ == "__main__":
    main()
