"""A publisher on the loopback that can misbehave, and tiny sources in the publishers' layouts."""

import io
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

STALL = 0.5  # seconds
CODES = "MEL NV BCC AK BKL DF VASC SCC UNK".split()
LESIONS = ("HAM_0000118", "HAM_0000118", "BCN_0003884", "MSK4_0011169", "", "BCN_0000001")
ISIC_IDS = tuple(
    f"ISIC_{number:07d}" + ("_downsampled" if number == 4 else "") for number in range(6)
)
ISIC_CLASSES = ("NV", "NV", "MEL", "NV", "DF", "MEL")


@dataclass
class Publisher:
    """What is served under which path, how, and what was requested."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    requested: list[tuple[str, str]] = field(default_factory=list)  # path, Range
    ranges: bool = True
    cut_after: int = 0  # bytes of each answer, then the connection breaks
    cuts: int = 10**9  # how many answers are cut
    stall_after: int = -1
    pause: float = 0.0  # seconds between blocks of 4 kB
    statuses: list[int] = field(default_factory=list)  # answered first, one per request

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"

    def serve(self, folder: str, files: dict[str, bytes]) -> None:
        self.files |= {f"{folder}/{name}": content for name, content in files.items()}


@contextmanager
def open_publisher() -> Iterator[Publisher]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    publisher = Publisher(f"http://127.0.0.1:{server.server_address[1]}")
    server.publisher = publisher  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield publisher
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        own: Publisher = self.server.publisher  # type: ignore[attr-defined]
        path, span = self.path.lstrip("/"), self.headers.get("Range", "")
        own.requested.append((path, span))
        if own.statuses:
            return self.end(own.statuses.pop(0))
        content = own.files.get(path)
        if content is None:
            return self.end(404)
        start = 0
        if own.ranges and span:
            start = int(span.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self.end(416)
        body = content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.send_body(own, body)

    def send_body(self, own: Publisher, body: bytes) -> None:
        if own.cut_after and own.cuts > 0:
            body, own.cuts = body[: own.cut_after], own.cuts - 1
            self.close_connection = True
        if own.stall_after >= 0:
            body = body[: own.stall_after]
            self.close_connection = True
        try:
            for place in range(0, len(body), 4096):
                self.wfile.write(body[place : place + 4096])
                time.sleep(own.pause)
            time.sleep(STALL if own.stall_after >= 0 else 0)
        except OSError:  # the client is gone
            self.close_connection = True

    def end(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def jpeg(seed: int, side: int = 16) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def zipped(files: dict[Any, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return stream.getvalue()


def isic2019_files() -> dict[str, bytes]:
    truth = ["image," + ",".join(CODES)]
    known = ["image,age_approx,anatom_site_general,lesion_id,sex"]
    for name, own, lesion in zip(ISIC_IDS, ISIC_CLASSES, LESIONS, strict=True):
        truth.append(name + "," + ",".join("1.0" if code == own else "0.0" for code in CODES))
        known.append(f"{name},55.0,head/neck,{lesion},female")
    images = {f"ISIC_2019_Training_Input/{name}.jpg": jpeg(n) for n, name in enumerate(ISIC_IDS)}
    return {
        "ISIC_2019_Training_GroundTruth.csv": "\n".join(truth).encode(),
        "ISIC_2019_Training_Metadata.csv": "\n".join(known).encode(),
        "ISIC_2019_Training_Input.zip": zipped(
            images | {"ISIC_2019_Training_Input/ATTRIBUTION.txt": b"by its authors"}
        ),
    }


def hyperkvasir_zip() -> bytes:
    files = {"labeled-images/image-labels.csv": b"Video file,Organ\n"}
    for place in (
        "lower-gi-tract/anatomical-landmarks/cecum",
        "lower-gi-tract/pathological-findings/polyps",
        "upper-gi-tract/anatomical-landmarks/z-line",
    ):
        for number in range(2):
            files[f"labeled-images/{place}/{place[-4:]}-{number}.jpg"] = jpeg(number)
    return zipped(files)


def medmnist_npz(*, grey: bool = False, side: int = 28) -> bytes:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 8), ("val", 7), ("test", 7)):
        shape = (count, side, side) if grey else (count, side, side, 3)
        arrays[f"{part}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count, dtype=np.uint8) % 7)[:, None]
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()
