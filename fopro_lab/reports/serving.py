"""The band explorer as a page: one notebook, served by voila on the loopback, for one person."""

import os
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.web import HTTPError
from traitlets.config import Config
from voila.app import Voila
from voila.shutdown_kernel_handler import VoilaShutdownKernelHandler
import copy
import json
import secrets
import webbrowser
from collections.abc import Mapping, Sequence
from tempfile import TemporaryDirectory
from fopro_lab.errors import InputError
from fopro_lab.reports.plan import missing_inputs
from fopro_lab.reports.plan import declared_parameters, fit_value, nearest, read_cells
from fopro_lab.reports.plan import CHECKOUT



IDLE = 600  # seconds without a page after which a kernel is ended
REMOTE = re.compile(r"""^.*(?:href|src)=["'](?:https?:)?//.*$\n?""", re.MULTILINE)
NO_DIAGRAMS = "{%- block html_head_js_mermaidjs -%}{%- endblock html_head_js_mermaidjs -%}"
LONGEST = 107  # characters of a socket's path; below the private folder there come some 75
# Should a part of the page ask for something elsewhere all the same, the browser refuses.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "connect-src 'self' ws://{host} data: blob:; frame-ancestors 'none'; base-uri 'self'"
)


class OwnKernel(KernelSpecManager):
    """Knows one kernel: this very interpreter."""

    def find_kernel_specs(self) -> dict[str, str]:
        """Name the kernel."""
        return {"python3": str(RESOURCES)}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Say how it is started, with errors of a line; another name means it as well."""
        spec = KernelSpec(resource_dir=str(RESOURCES), **get_kernel_dict())
        spec.argv.append("--InteractiveShell.xmode=Minimal")
        return spec


class ClosedPage(VoilaShutdownKernelHandler):
    """Ends the kernel of a page that was closed.

    What a browser still sends from there carries its cookie, which is asked for, and no second
    token in the body; so the page's origin is looked at instead.
    """

    def check_xsrf_cookie(self) -> None:
        """Refuse what another site sends."""
        if not self.check_origin():
            raise HTTPError(404)


class PageServer(Voila):
    """voila on a socket that is there already, without configuration files, without remote parts.

    Attributes:
        sockets: Listening.
        ready: Called once the page can be asked for.
    """

    sockets: Sequence[socket.socket] = ()
    ready: Callable[[], None] = staticmethod(lambda: None)

    def setup_template_dirs(self) -> None:
        """Put a copy of the page's template before all others: one that asks nothing of others."""
        super().setup_template_dirs()
        name = "index.html.j2"
        found = next(Path(p) / name for p in self.template_paths if (Path(p) / name).is_file())
        own = Path(self.notebook_path).parents[1] / "templates"
        own.mkdir()
        kept = REMOTE.sub("", found.read_text(encoding="utf-8"))
        (own / name).write_text(f"{kept}\n{NO_DIAGRAMS}\n", encoding="utf-8")
        self.template_paths.insert(0, str(own))

    def init_handlers(self) -> list[Any]:
        """Take voila's, but for the one that hears of a closed page."""
        return [
            (path, ClosedPage, *more) if kind is VoilaShutdownKernelHandler else (path, kind, *more)
            for path, kind, *more in super().init_handlers()
        ]

    def listen(self) -> None:
        """Answer at the socket until Ctrl-C, then end the kernels."""
        HTTPServer(self.app).add_sockets(self.sockets)
        self.ioloop = IOLoop.current()
        self.ioloop.add_callback(self.ready)
        try:
            self.ioloop.start()
        except KeyboardInterrupt:
            pass
        finally:
            self.stop()


def page_server(
    notebook: Path, sockets: Sequence[socket.socket], *, token: str, ready: Callable[[], None]
) -> PageServer:
    """Build the server of one notebook.

    Args:
        notebook: In a folder of its own, in a private one.
        sockets: Of the loopback, listening.
        token: Without it nobody sees the page or reaches a kernel.
        ready: Called once the page can be asked for.

    Returns:
        The server; its ``start()`` serves until Ctrl-C.
    """
    host = "{}:{}".format(*sockets[0].getsockname()[:2])
    config: dict[str, dict[str, Any]] = {
        "PageServer": {
            "notebook_path": str(notebook),
            "root_dir": str(notebook.parent),
            "connection_dir_root": str(notebook.parents[1]),
            "token": token,
            "open_browser": False,
            "log_level": "ERROR",
            "tornado_settings": {
                "headers": {"Content-Security-Policy": POLICY.format(host=host)},
                "ws_ping_timeout": 30000,  # as long as the interval; tornado refuses a longer one
            },
        },
        "VoilaConfiguration": {
            "strip_sources": True,
            "show_tracebacks": True,  # which are a line each
            "file_allowlist": [],
            "file_denylist": [".*"],
            "allow_template_override": "NO",
            "allow_theme_override": "NO",
            "template": "lab",
            "kernel_spec_manager_class": OwnKernel,
        },
        "MappingKernelManager": {
            "root_dir": os.getcwd(),
            "cull_idle_timeout": IDLE,
            "cull_interval": 60,
        },
    }
    if len(str(notebook.parents[1])) + 75 < LONGEST:  # sockets that only the user can open
        config["KernelManager"] = {"transport": "ipc"}
    server = PageServer(config=Config(config), config_file_paths=[])
    server.sockets, server.ready = sockets, ready
    server.initialize([])
    return server


NOTEBOOK = "06_band_explorer.ipynb"
WIDGET = "chooser"  # what the last cell of the page shows
LOOPBACK = "127.0.0.1"
PORT = 8866
PINS = "pins"  # of the current folder


def explorer_notebook() -> Path:
    """Find the notebook that is served: of the current folder, or of the package's checkout.

    Raises:
        InputError: If there is none.

    Example:
        >>> explorer_notebook().name
        '06_band_explorer.ipynb'
    """
    homes = [Path("notebooks"), CHECKOUT / "notebooks"]
    for home in homes:
        if (home / NOTEBOOK).is_file():
            return home / NOTEBOOK
    looked = " or ".join(str(home.absolute()) for home in homes)
    raise InputError(f"{NOTEBOOK}: no such notebook in {looked}; start in a checkout")


def page_notebook(source: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a notebook up to its widget, with other parameters.

    What comes after the widget belongs to a report; a page would be empty until it is computed.

    Args:
        source: The notebook.
        values: Parameters by name.

    Returns:
        The notebook as JSON.

    Raises:
        InputError: If the notebook does not declare a name, says which is near, or a value does
            not fit; or if an input that they name is not there.

    Example:
        >>> page_notebook(explorer_notebook(), {"ring": 4})
        Traceback (most recent call last):
        fopro_lab.errors.InputError: ring: the explorer has no such knob; did you mean 'rings'?
    """
    declared = declared_parameters(source)
    for name in values:
        if name not in declared:
            told = nearest(name, declared)
            raise InputError(f"{name}: the explorer has no such knob; {told}")
    fitted = {name: fit_value(value, declared[name], name=name) for name, value in values.items()}
    missing = missing_inputs({**declared, **fitted})
    if missing:
        raise InputError("; ".join(map(str, missing)))
    cells: list[dict[str, Any]] = []
    for cell in read_cells(source):
        cells.append(cell)
        if "parameters" in cell.get("metadata", {}).get("tags", []):
            given = copy.deepcopy(cell) | {"id": "given", "metadata": {}}
            cells.append(given | {"source": "\n".join(f"{k} = {v!r}" for k, v in fitted.items())})
        if cell["source"].rstrip().splitlines()[-1:] == [WIDGET]:
            break
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    whole = json.loads(source.read_text(encoding="utf-8"))
    return {**whole, "cells": cells, "metadata": {"kernelspec": kernel, "title": "Band explorer"}}


def free_port(port: int) -> list[socket.socket]:
    """Take a port of the loopback.

    Args:
        port: 1 to 65535, or 0 for any that is free.

    Returns:
        The listening socket, in a list as tornado wants it.

    Raises:
        InputError: If it is no port, another program holds it, or it may not be taken.

    Example:
        >>> free_port(-1)
        Traceback (most recent call last):
        fopro_lab.errors.InputError: port: expected 0 (any) to 65535, got -1
    """
    if not 0 <= port <= 65535:
        raise InputError(f"port: expected 0 (any) to 65535, got {port}")
    try:
        taken = socket.create_server((LOOPBACK, port))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            f"port: {port} cannot be taken ({reason}); choose another: --port N, or 0 for any"
        ) from None
    taken.setblocking(False)
    return [taken]


def serve_explorer(
    values: Mapping[str, Any], *, port: int = PORT, browser: bool = True, out: str = ""
) -> None:
    """Serve the band explorer until Ctrl-C; each view of the page has a kernel of its own.

    The page is reached from this machine alone, and with the token alone that its printed address
    holds. Kernels run in the current folder, so relative paths mean what they mean on the command
    line. No file is handed out, not even the notebook's.

    Args:
        values: Parameters of the notebook.
        port: Of the loopback; 0 is any that is free.
        browser: Whether to open it.
        out: Folder for what the notebook writes; empty throws it away.

    Raises:
        InputError: As `page_notebook` and `free_port`.

    Example:
        >>> serve_explorer({}, port=70000)
        Traceback (most recent call last):
        fopro_lab.errors.InputError: port: expected 0 (any) to 65535, got 70000
    """
    sockets = free_port(port)
    port = sockets[0].getsockname()[1]
    try:
        with TemporaryDirectory(prefix="fopro-explore-") as name:
            folder = Path(name)
            place = Path(out).absolute() if out else folder / "out"
            places = {"out_dir": str(place), "pins_dir": str(values.get("pins_dir", PINS))}
            page = page_notebook(explorer_notebook(), {**values, **places})
            (folder / "page").mkdir()
            served = folder / "page" / "explore.ipynb"
            served.write_text(json.dumps(page), encoding="utf-8")
            token = secrets.token_urlsafe(32)
            address = f"http://{LOOPBACK}:{port}/?token={token}"
            _run(served, sockets, token=token, address=address, browser=browser)
    finally:
        for each in sockets:
            each.close()


def _run(
    served: Path, sockets: Sequence[socket.socket], *, token: str, address: str, browser: bool
) -> None:

    def ready() -> None:
        print(f"{address}\nCtrl-C ends it.", flush=True)  # noqa: T201 - it is the answer
        if browser:
            _open(address, served.parents[1])

    server = page_server(served, sockets, token=token, ready=ready)
    server.start()


def _open(address: str, folder: Path) -> None:
    """Open the browser by a file: its command line, which others can read, tells no token."""
    file = folder / "open.html"
    file.touch(mode=0o600)
    file.write_text(f'<meta http-equiv="refresh" content="0;url={address}">', encoding="utf-8")
    webbrowser.open(file.as_uri(), new=2)
