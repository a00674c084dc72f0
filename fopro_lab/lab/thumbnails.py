"""Pictures made small for a page: within a budget of bytes, and kept for the next time."""

import base64
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

from fopro_lab.files import atomic_path

BUDGET = 3_600_000  # bytes that all thumbnails of a page may take; a page is to stay below 5 MB
_KEPT = ".thumbnails"
# Width in pixels, quality, and the bytes that a figure of lines and words takes by experience:
# where there are fewer, the step is not even tried.
_STEPS = ((560, 86, 9_000), (420, 80, 6_500), (320, 76, 4_500), (240, 70, 0), (180, 60, 0))


def thumbnail(path: Path | str, *, width: int = 560, quality: int = 86) -> str:
    """Shrink a picture and write it as a ``data:`` address.

    Args:
        path: Picture file.
        width: Largest width, pixels; twice what the page shows, for fine screens.
        quality: Of WebP, 1 to 100.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
        ...     Image.new("RGB", (900, 300)).save(file.name)
        ...     thumbnail(file.name)[:22]
        'data:image/webp;base64'
    """
    return as_address(shrink(Path(path).read_bytes(), width=width, quality=quality))


def as_address(webp: bytes) -> str:
    """Write the bytes of a WebP picture as a ``data:`` address.

    Example:
        >>> as_address(b"abc")
        'data:image/webp;base64,YWJj'
    """
    return "data:image/webp;base64," + base64.b64encode(webp).decode()


def shrink(picture: bytes, *, width: int, quality: int) -> bytes:
    """Encode a picture anew as WebP, on white where it is transparent.

    Args:
        picture: Bytes of a picture file.
        width: Largest width and height, pixels; a smaller picture keeps its size.
        quality: Of WebP, 1 to 100.

    Returns:
        Bytes of the WebP file.

    Raises:
        OSError: If this is no picture that can be read.
    """
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as opened:
        small = opened.convert("RGBA")
    small.thumbnail((width, width), Image.Resampling.LANCZOS, reducing_gap=3.0)
    paper = Image.new("RGBA", small.size, "white")
    paper.alpha_composite(small)
    stream = io.BytesIO()
    paper.convert("RGB").save(stream, "WEBP", quality=quality, method=3)
    return stream.getvalue()


def small_pictures(
    paths: Sequence[Path], *, folder: Path | None = None, budget: int = BUDGET
) -> dict[Path, str]:
    """Shrink the pictures of a page so far that all together stay within a budget.

    Args:
        paths: Picture files.
        folder: Where thumbnails are kept for the next time, in ``.thumbnails``, and those of
            pictures that are gone are removed; None keeps nothing.
        budget: Bytes of all addresses together, held unless even the smallest are too many.

    Returns:
        A ``data:`` address for each path; empty where the file is no picture.

    Example:
        >>> small_pictures([])
        {}
    """
    share = budget // max(1, len(paths)) * 3 // 4  # base64 makes four characters of three bytes
    kept = None if folder is None else folder / _KEPT
    found, used = {}, set()
    for path in paths:
        state = path.stat()
        key = repr((str(path), state.st_size, state.st_mtime_ns, share, _STEPS))
        name = f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.webp"
        used.add(name)
        small = _kept_or_made(path, kept and kept / name, share)
        found[path] = as_address(small) if small else ""
    if kept is not None and kept.is_dir():
        for old in kept.glob("*.webp"):
            if old.name not in used:
                old.unlink(missing_ok=True)
    return found


def _kept_or_made(path: Path, kept: Path | None, share: int) -> bytes:
    """The thumbnail; nothing if the file is damaged."""
    from PIL import Image

    if kept is not None and kept.is_file():
        return kept.read_bytes()
    picture = path.read_bytes()
    for width, quality, least in _STEPS:
        if share < least:
            continue
        try:
            made = shrink(picture, width=width, quality=quality)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return b""
        if len(made) <= share:
            break
    if kept is not None:
        with atomic_path(kept) as temporary:
            temporary.write_bytes(made)
    return made
