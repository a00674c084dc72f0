"""A server on the loopback that can misbehave in every way a publisher's server might."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fopro_lab.data.fetch import Patience

HASTY = Patience(connect=2.0, read=0.3, attempts=3, pause=0.01)


@dataclass
class Manners:
    """How a server treats one who asks; the defaults are good manners."""

    ranges: bool = True
    tag: str = '"one"'
    changed: str = ""
    heed_if_range: bool = True
    cut_after: int = 0  # bytes of each answer, then the connection is gone
    cuts: int = 10**9  # how many answers are cut
    declared: int = 0  # added to the declared length of a whole answer
    length: bool = True
    stall_after: int = -1
    drip: float = 0.0  # seconds between bytes
    pause: float = 0.0  # seconds between blocks of 4 kB
    statuses: list[int] = field(default_factory=list)  # answered first, one a request
    encoding: str = ""
    chunked: bool = False
    retry_after: str = ""


@dataclass
class Shop:
    """What is served under which path, and who asked."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    manners: Manners = field(default_factory=Manners)
    asked: list[tuple[str, str]] = field(default_factory=list)  # path, Range
    sent: int = 0

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"


@contextmanager
def open_shop() -> Iterator[Shop]:
    server = QuietServer(("127.0.0.1", 0), Clerk)
    shop = Shop(f"http://127.0.0.1:{server.server_address[1]}")
    server.shop = shop  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield shop
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of those who were killed while they were served."""


class Clerk(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        shop: Shop = self.server.shop  # type: ignore[attr-defined]
        manners, asked = shop.manners, self.headers.get("Range", "")
        path = self.path.lstrip("/")
        shop.asked.append((path, asked))
        if manners.statuses:
            return self.end(manners.statuses.pop(0), {"Retry-After": manners.retry_after})
        content = shop.files.get(path)
        if content is None:
            return self.end(404)
        start = 0
        fresh = self.headers.get("If-Range", manners.tag) in (manners.tag, manners.changed)
        if manners.ranges and asked and (fresh or not manners.heed_if_range):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self.end(416, {"Content-Range": f"bytes */{len(content)}"})
        self.send_response(206 if start else 200)
        body = content[start:]
        if start:
            total = len(content)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if manners.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif manners.length:
            lie = 0 if start else manners.declared
            self.send_header("Content-Length", str(len(body) + lie))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        if manners.tag:
            self.send_header("ETag", manners.tag)
        if manners.encoding:
            self.send_header("Content-Encoding", manners.encoding)
        self.end_headers()
        self.hand_over(shop, body)

    def hand_over(self, shop: Shop, body: bytes) -> None:
        manners = shop.manners
        cut = manners.cut_after and manners.cuts > 0
        if cut:
            body, manners.cuts = body[: manners.cut_after], manners.cuts - 1
        if manners.stall_after >= 0:
            body = body[: manners.stall_after]
        step = 1 if manners.drip else 4096
        try:
            for place in range(0, len(body), step):
                block = body[place : place + step]
                size = b"%x\r\n" % len(block)
                self.wfile.write(size + block + b"\r\n" if manners.chunked else block)
                shop.sent += len(body[place : place + step])
                time.sleep(manners.drip or manners.pause)
            if manners.chunked and not cut:
                self.wfile.write(b"0\r\n\r\n")
            if manners.stall_after >= 0:
                time.sleep(3 * HASTY.read)
        except OSError:  # whoever asked is gone
            self.close_connection = True
        if cut or manners.declared or manners.stall_after >= 0:
            self.close_connection = True

    def end(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()
