"""`fopro gallery`: the README's figures, from a finished report."""

from pathlib import Path
from typing import Annotated

import typer

from fopro_lab.cli.options import Out


def gallery(
    report: Annotated[str, typer.Argument(metavar="REPORT", help="Folder of a finished report.")],
    out: Out = "",
    take: Annotated[
        list[str] | None,
        typer.Option(metavar="[NODE/]FILE", help="Take this file; * is any letters; repeatable."),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="KB", help="Largest size of a picture.")] = 150,
) -> None:
    """Copy the figures of a finished report that a README shows, and say where they are from.

    Without --out into reports/gallery/NAME, by the report's name. Beside the figures lie README.md
    and manifest.json: plan, settings, commit, date, and each file's source and hash.
    """
    from fopro_lab.lab.gallery import make_gallery

    folder = Path(report)
    place = Path(out or Path("reports") / "gallery" / folder.resolve().name)
    print(make_gallery(folder, out=place, chosen=take or [], limit=limit))
