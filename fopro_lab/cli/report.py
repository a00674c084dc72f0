"""`fopro report`: a plan's notebooks, executed."""

from pathlib import Path
from typing import Annotated

import typer

from fopro_lab.cli.options import Out, Settings
from fopro_lab.errors import InputError, WorkError

_Names = list[str] | None


def report(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="YAML file: notebooks and knobs.")],
    out: Out = "",
    settings: Settings = [],
    file: Annotated[
        _Names,
        typer.Option("-f", "--file", metavar="FILE.yaml", help="Pinned knobs; repeatable."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(help="Notebooks at a time; 0 is one a GPU, or one a core without.")
    ] = 0,
    executor: Annotated[
        str, typer.Option(metavar="WHERE", help="local, dask or dask://HOST:PORT.")
    ] = "local",
    only: Annotated[
        _Names,
        typer.Option("--only", metavar="NAME", help="Execute this notebook alone; repeatable."),
    ] = None,
    again: Annotated[
        _Names,
        typer.Option("--again", metavar="NAME", help="Execute it even if unchanged; repeatable."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Execute every notebook, even if unchanged.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the --set and -f of the report that lies there."),
    ] = False,
    limit: Annotated[
        str, typer.Option(metavar="MINUTES", help="Longest time a notebook, for all of the plan.")
    ] = "",
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Dry run: the graph, the cost and what is missing.")
    ] = False,
) -> None:
    """Execute a plan's notebooks and print the path of its index page.

    What is unchanged is always kept: notebook, parameters, package, input files and what it waits
    for. The same command twice goes on where the first ended. --resume needs no --set and no -f:
    it takes those of the report that lies in the folder, and fails where none lies. --again and
    --fresh execute what is unchanged, too; a training run that lies complete is taken up.

    -f gives knobs that the explorer pinned, or any of a plan; --set wins over it. On dask each
    notebook is a task, one a thread of a worker; all must see the same folders.

    With --plan nothing is executed or written: every notebook is listed with what it waits for,
    then the cost as far as it is known, and each input that is missing, with the way to get it.
    Exit code 1 if something is missing, 0 if the plan is ready.
    """
    folder = Path(out or Path("reports") / Path(plan).stem)
    options = {"--only": only, "--again": again, "--fresh": fresh, "--resume": resume}
    given = [name for name, value in options.items() if value]
    if plan_only and given:
        raise InputError(
            f"{given[0]}: expected without --plan, which shows the whole plan; leave it out"
        )
    if plan_only:
        _tell_plan(plan, folder, settings, file or [], jobs)
        return
    from fopro_lab.lab.limits import limit_seconds
    from fopro_lab.lab.reports import run_plan

    index = run_plan(
        plan,
        out=folder,
        settings=settings,
        files=file or [],
        jobs=jobs,
        executor=executor,
        only=only or [],
        again=again or [],
        fresh=fresh,
        limit=limit_seconds(limit, name="--limit", unit="min"),
        resume=resume,
    )
    print(index)


def _tell_plan(plan: str, folder: Path, settings: list[str], files: list[str], jobs: int) -> None:
    from fopro_lab.lab.dry_run import dry_run

    told = dry_run(plan, out=folder, settings=settings, files=files, jobs=jobs)
    print("\n".join(told.lines()))
    if not told.ready:
        count = len(told.missing) + len(told.wrong)
        raise WorkError(f"not ready: {count} missing or wrong, see above; nothing was executed")
