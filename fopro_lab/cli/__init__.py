"""The door: `fopro ...`. Each command reads its words, calls one room and says what it did.

Rooms are imported inside the commands: `fopro --help` waits for neither torch nor pandas.
"""

import os
import sys

import typer
from typer.exceptions import TyperException

from fopro_lab.cli.bench import bench_app
from fopro_lab.cli.compare import compare
from fopro_lab.cli.data import data_app
from fopro_lab.cli.explore import explore
from fopro_lab.cli.gallery import gallery
from fopro_lab.cli.options import KINDS
from fopro_lab.cli.report import report
from fopro_lab.cli.teachers import teachers_app
from fopro_lab.cli.work import ledger, probe, train
from fopro_lab.errors import InputError, WorkError

HELP = "An open laboratory for Fourier-prompted knowledge distillation on long-tailed pictures."
INTERRUPTED = 130  # what typer makes of Ctrl-C

app = typer.Typer(help=HELP, **KINDS)
app.add_typer(data_app, name="data")
app.add_typer(teachers_app, name="teachers")
app.add_typer(bench_app, name="bench")
for command in (train, probe, report, compare, explore, gallery, ledger):
    app.command()(command)


def main() -> None:
    """Run a command: exit code 0 done, 1 the work failed, 2 the input was wrong."""
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:
            _leave(
                "stopped; what was finished is kept, the same command goes on from there", code=1
            )
        sys.exit(code)
    except TyperException as error:
        told = error.format_message()
        if told.startswith("Usage:"):  # a command without words is answered by its help
            print(told, file=sys.stderr)
            sys.exit(error.exit_code)
        _leave(f"{told} (see --help)", code=error.exit_code)
    except (InputError, WorkError) as error:
        code = 2 if isinstance(error, InputError) else 1
        if error.told:  # by another of several processes, or within the run
            sys.exit(code)
        _leave(str(error), code=code)
    except BrokenPipeError:
        os._exit(1)  # whoever read the output is gone; flushing it again would only complain
    except Exception as error:
        if os.environ.get("FOPRO_DEBUG"):
            raise
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        _leave(f"unexpected {told} (FOPRO_DEBUG=1 shows where; please report it)", code=1)


def _leave(message: str, *, code: int) -> None:
    print(f"fopro: {message}", file=sys.stderr)
    sys.exit(code)
