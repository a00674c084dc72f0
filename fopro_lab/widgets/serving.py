"""The band explorer as a page: served by voila, on this machine alone."""

import logging
import os
import secrets
import socket
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from jupyter_server.base.handlers import JupyterHandler, Template404
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from nbformat.v4 import new_code_cell, new_notebook
from tornado.ioloop import IOLoop
from tornado.web import HTTPError
from traitlets.config import Config
from voila.app import Voila

from fopro_lab.config import ExploreConfig
from fopro_lab.errors import InputError, WorkError
from fopro_lab.io import scratch_folder
from fopro_lab.options import current_options
from fopro_lab.reports.plan import missing_inputs
from fopro_lab.widgets.explorer import build_explorer, run_options

HOST, PORT = "127.0.0.1", 8866
IDLE_SECONDS, LOOK_SECONDS = 12, 3  # a kernel whose page was closed ends within 30 s
MOST_PAGES = 8  # at a time, as each has a kernel with the teacher in memory
# voila's template names style sheets and scripts elsewhere; the browser must not ask for them.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "connect-src 'self' ws://{host} data: blob:; frame-ancestors 'none'; base-uri 'self'"
)


def serve_explorer(
    values: Mapping[str, Any], *, run: str = "", port: int = PORT, browser: bool = True
) -> None:
    """Serve the band explorer until Ctrl-C; each view of the page has a kernel of its own.

    The page is reached from this machine alone, and only with the token of its printed address.
    Kernels run in the current folder. No file is handed out, not even the notebook.

    Args:
        values: Options of `ExploreConfig`; presets are saved in ``presets`` unless it says so.
        run: Run folder whose data, split, teacher and prompt are taken; empty is none.
        port: Port on the loopback; 0 is any that is free.
        browser: Whether to open it.

    Raises:
        InputError: If anything is missing or does not fit, before there is a page.
    """
    values = current_options(values)
    config = ExploreConfig.from_mapping(run_options(run, values) if run else values)
    missing = missing_inputs(config)
    if missing:
        raise InputError("; ".join(missing))
    port, token = free_port(port), secrets.token_urlsafe(32)
    # packs the images here, and refuses here what a page would refuse
    build_explorer(config, checked="fopro: opening images and networks; the address comes next\n")
    address = f"http://{HOST}:{port}/login?token={token}"  # sets a cookie, and leads to the page
    with scratch_folder() as folder:
        page = folder / "page" / "explorer.ipynb"
        page.parent.mkdir()
        nbformat.write(page_notebook(config), page)

        def ready() -> None:
            print(f"{address}\nCtrl-C ends it.", flush=True)  # noqa: T201 - it is the answer
            if browser:  # by a file: others can read command lines, and this one has a token
                link = folder / "open.html"
                link.touch(mode=0o600)
                link.write_text(f'<meta http-equiv="refresh" content="0;url={address}">')
                webbrowser.open(link.as_uri(), new=2)

        os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel is this interpreter
        logging.setLogRecordFactory(_record)
        JupyterHandler.write_error = _write_error  # type: ignore[method-assign]
        server = _Server(config=Config(_settings(page, port, token)), config_file_paths=[])
        server.initialize([])
        IOLoop.current().add_callback(ready)  # as soon as the server answers
        server.start()


def _record(*given: Any, **how: Any) -> logging.LogRecord:
    """Make one line of what the server logs, an error with its traceback as well."""
    made = logging.LogRecord(*given, **how)
    error = made.exc_info and made.exc_info[1]
    line = made.getMessage() + (f": {type(error).__name__}: {error}" if error else "")
    made.msg, made.args, made.exc_info = str(WorkError(line)), (), None
    return made


def _write_error(self: JupyterHandler, status_code: int, **_: Any) -> None:
    """Answer in a line: pages of errors are templates that need a user, and files of Jupyter."""
    self.set_header("Content-Type", "text/plain; charset=UTF-8")
    self.finish(f"{status_code}: {self._reason}\n")


class _Server(Voila):
    """Voila with a plain 404 where it fails: at leaving, and at control codes in a path."""

    def init_handlers(self) -> list[Any]:
        odd = r"/logout|.*%(?:[01][0-9A-Fa-f]|7[Ff]).*"
        return [(odd, Template404), *super().init_handlers()]


class _Kernels(AsyncMappingKernelManager):
    """Kernels of pages, no more than a machine bears."""

    async def start_kernel(self, **how: Any) -> str:  # type: ignore[override]
        if len({*self.list_kernel_ids(), *self._starting_kernels}) >= MOST_PAGES:
            raise HTTPError(503, reason=f"{MOST_PAGES} pages are open; close one and wait 30 s")
        return await super().start_kernel(**how)

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        if kernel_id in self:  # still: it may have ended while another did
            await super().cull_kernel_if_idle(kernel_id)


def _settings(page: Path, port: int, token: str) -> dict[str, dict[str, Any]]:
    """Return voila's own options, by class."""
    tornado: dict[str, Any] = {"local_hostnames": [HOST, "localhost"]}
    tornado |= {"allow_remote_access": False}  # a foreign Host header is refused
    tornado |= {"headers": {"Content-Security-Policy": POLICY.format(host=f"{HOST}:{port}")}}
    tornado |= {"ws_ping_timeout": 30000}  # ms, as the interval; tornado warns of a longer one
    voila: dict[str, Any] = {"tornado_settings": tornado, "log_level": "ERROR"}
    voila |= {"notebook_path": str(page), "root_dir": str(page.parent)}
    voila |= {"connection_dir_root": str(page.parents[1])}
    voila |= {"ip": HOST, "port": port, "port_retries": 0, "token": token}
    voila |= {"open_browser": False}  # voila would open the address without its token
    pages: dict[str, Any] = {"template": "lab", "multi_kernel_manager_class": _Kernels}
    pages |= {"strip_sources": True, "show_tracebacks": True}  # of one line, see `page_notebook`
    pages |= {"file_allowlist": [], "file_denylist": [".*"]}
    pages |= {"allow_template_override": "NO", "allow_theme_override": "NO"}
    # Sockets that only the user can open, where the system takes a path as long as theirs.
    kernel: dict[str, Any] = {"transport": "ipc" if len(str(page.parents[1])) < 32 else "tcp"}
    kernel |= {"shutdown_wait_time": 1.0}  # seconds, as they are ended one after the other
    kernels = {"cull_idle_timeout": IDLE_SECONDS, "cull_interval": LOOK_SECONDS}
    return {
        "Voila": voila,
        "VoilaConfiguration": pages,
        # Lax, as Strict would hold the cookie back when the browser comes from `open.html`.
        "IdentityProvider": {"cookie_options": {"samesite": "Lax"}},
        "KernelManager": kernel,
        "MappingKernelManager": {"root_dir": os.getcwd(), **kernels},
    }


def page_notebook(config: ExploreConfig) -> nbformat.NotebookNode:
    """Write a notebook of one cell that shows the explorer."""
    lines = [
        "get_ipython().InteractiveTB.set_mode('Minimal')  # an error is one line",
        "from ipywidgets import VBox",
        "from fopro_lab.config import ExploreConfig",
        "from fopro_lab.widgets import open_explorer",
        f"options = {config.model_dump(exclude_defaults=True)!r}",
        "VBox([open_explorer(ExploreConfig(**options))])  # in a box: without a report's still",
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "title": "Band explorer"}
    return new_notebook(cells=[new_code_cell("\n".join(lines))], metadata=metadata)


def free_port(port: int) -> int:
    """Return a port of the loopback that can be taken; 0 finds any."""
    if not 0 <= port <= 65535:
        raise InputError(f"port: expected 0 (any) to 65535, got {port}")
    try:
        with socket.create_server((HOST, port)) as server:
            return server.getsockname()[1]
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        rule = f"{port} cannot be taken ({reason}); choose another"
        raise InputError(f"port: {rule}: --port N, or 0 for any") from None
