"""One notebook in a process of its own: ``python -m fopro_lab.lab.execute``, told by stdin.

A process a notebook, because a kernel that is killed for memory must take nothing else along.
"""

import json
import os
import sys
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fopro_lab.errors import WorkError
from fopro_lab.files import atomic_path


@dataclass(frozen=True)
class Job:
    """What to execute and where the results go; paths are seen from the current folder.

    ``notebook`` is the source, ``executed`` and ``page`` are written, ``parameters`` are injected.
    """

    name: str
    notebook: str
    executed: str
    page: str
    parameters: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the job as one line, the form in which the process is told."""
        return json.dumps(asdict(self))


def execute(job: Job) -> str:
    """Execute a notebook with papermill and write the executed copy and its page.

    Both are written whole, and also when a cell fails: then with its red cell.

    Args:
        job: What and where.

    Returns:
        Empty when every cell went through, else one line: the error of the red cell.

    Raises:
        WorkError: If the kernel does not start, twice, or the disk is full.
    """
    from nbclient.exceptions import DeadKernelError

    for attempt in (1, 2):
        # the folder's name is short: a socket's path may have 107 characters
        with TemporaryDirectory(prefix="fopro-") as folder:
            try:
                return _execute_in(job, Path(folder))
            except DeadKernelError:
                raise
            except RuntimeError as error:
                if isinstance(error, WorkError) or attempt == 2:
                    raise WorkError(f"{job.name}: the kernel does not start ({error})") from error
    raise AssertionError("unreachable")


def _execute_in(job: Job, folder: Path) -> str:
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    from fopro_lab.lab.pages import notebook_page

    live, failure = folder / "live.ipynb", ""
    try:
        papermill.execute_notebook(
            job.notebook,
            live,
            parameters=job.parameters,
            kernel_name="python3",
            language="python",  # a stripped notebook may not say it
            progress_bar=False,
            kernel_manager_class=_kernel_class(folder),
        )
    except papermill.PapermillExecutionError as error:
        failure = f"{error.ename}: {error.evalue}".strip().splitlines()[0]
    except DeadKernelError:
        failure = "the kernel died in the middle of a cell; was the memory full?"
        _mark_dead_cell(live, failure)
    notebook = nbformat.read(live, as_version=4)
    notebook.metadata.papermill.update(input_path=job.notebook, output_path=job.executed)
    with atomic_path(job.executed) as temporary, open(temporary, "w", encoding="utf-8") as file:
        nbformat.write(notebook, file)
    with atomic_path(job.page) as temporary:
        temporary.write_text(notebook_page(notebook, name=job.name), encoding="utf-8")
    return failure


def _kernel_class(folder: Path) -> type:
    """Build the manager of a kernel of this very interpreter, reached without ports.

    Kernels that start at the same time race for TCP ports; sockets in a private folder have no
    such race. The kernel's command is given here, so a kernel of the same name that another
    environment has registered is never taken.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    class PrivateKernel(AsyncKernelManager):
        kernel_spec = KernelSpec(resource_dir="", **get_kernel_dict())

        @default("transport")
        def _no_ports(self) -> str:
            return "ipc"

        @default("connection_file")
        def _in_the_private_folder(self) -> str:
            return str(folder / "kernel.json")

    return PrivateKernel


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


def _end_with_parent() -> None:
    """Exit when the process that told the job is gone; the kernel follows within a second."""
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    """Execute the job on the first line of stdin; the last line of stdout is the result."""
    # building this parser of web addresses takes 1.7 s; jsonschema does without, notebooks as well
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    job = Job(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        result = {"failure": execute(job)}
    except WorkError as error:
        result = {"failure": str(error)}
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    sys.stdout.flush()
    # the watching thread holds stdin's lock, at which an orderly exit would wait
    os._exit(0)


if __name__ == "__main__":
    main()
