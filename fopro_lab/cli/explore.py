"""`fopro explore`: the band explorer as a page of this machine."""

from typing import Annotated

import typer

from fopro_lab.cli.options import FromFile, Settings


def explore(
    settings: Settings = [],
    file: FromFile = "",
    port: Annotated[int, typer.Option(help="Of 127.0.0.1; 0 is any that is free.")] = 8866,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Whether to open the page.")
    ] = True,
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", help="Folder for its figures; else none is kept.")
    ] = "",
) -> None:
    """Serve the band explorer as a page on this machine, and print its address.

    The address holds a token, without which nobody reaches the page. Paths are seen from the
    current folder, and what "Pin" writes lands there in pins/. Ctrl-C ends page and kernels.
    """
    from fopro_lab.lab.serving import serve_explorer
    from fopro_lab.settings import parse_settings, read_yaml

    values = {**(read_yaml(file) if file else {}), **parse_settings(settings)}
    serve_explorer(values, port=port, browser=browser, out=out)
