"""voila, set so that it serves one notebook, to who has the token, and nothing else."""

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
