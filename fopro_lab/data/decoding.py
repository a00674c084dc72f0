"""Decode image files to 8-bit RGB, with the same rules everywhere."""

import io
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageOps, features

from fopro_lab.config import Interpolation
from fopro_lab.errors import InputError

PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a tag of TIFF, and its value for radiographs
Reader = Callable[[int, int], np.ndarray]  # (row, size) to uint8 (size, size, 3)
RULES = "rgb8-3 exact"  # part of a pack's key: change it when pixels change
SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")
DEPTHS = (8, 10, 12, 14, 16)  # bits that instruments use of 16
PREFETCH = 8  # bytes that libjpeg reads ahead


def decoder_version(interpolation: Interpolation = "bilinear") -> str:
    """Name everything that decides the pixels: our rules, Pillow and its JPEG library."""
    return f"{RULES} {interpolation} pillow {Image.__version__} jpeg {features.version('jpg')}"


def read_image(
    path: Path | str,
    *,
    size: int | None = None,
    interpolation: Interpolation = "bilinear",
    depth: int | Callable[[], int] = 16,
) -> np.ndarray:
    """Decode one file to ``uint8 (size, size, 3)`` or, without a size, to its own ``(H, W, 3)``.

    The whole image is resized to a square, with antialiasing, as the published transforms do.
    The content decides the format, not the suffix. EXIF orientation is applied; grey, palette and
    CMYK become RGB; transparency is composited over white; of an animation the first frame is read.
    Grey levels of 16-bit files are scaled to 0..255 from 0 to the highest of ``depth`` bits.

    A JPEG whose pixels end before its data, or after, is refused as damaged. Not noticed is damage
    that leaves the data in step, or lies between restart markers or in a progressive file, unless
    it made an impossible marker.
    """
    try:
        stream = watch_jpeg(path)
        with _quiet(), Image.open(stream or path) as opened:
            wide = _wide_colour(opened)
            ImageOps.exif_transpose(opened, in_place=True)  # in place: a copy costs a tenth
            bits = 16
            if wide or opened.mode in SIXTEEN_BIT:
                bits = depth() if callable(depth) else depth
            if wide and bits < 16:
                raise InputError(f"{bits} bits of 16 in colour are not read; save as 8 bit")
            image = to_rgb(opened, depth=bits)
            if stream is not None and not stream.in_step:
                raise InputError("damaged: its compressed data are not as long as its pixels need")
            if size is not None:
                image = image.resize((size, size), Image.Resampling[interpolation.upper()])
            return np.asarray(image)
    except FileNotFoundError:
        reason = "no such file"
    except Image.DecompressionBombError:
        reason = "expected at most 179 million pixels; shrink the image first"
    except InputError as error:
        reason = str(error)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever they like on a damaged file
        text = " ".join(str(error).split()) or type(error).__name__
        text = text.replace(repr(str(path)), "the file").replace(str(path), "the file")
        text = re.sub(r"<.*>", "the file", text)
        empty = Path(path).is_file() and not Path(path).stat().st_size
        reason = f"cannot be decoded ({'the file is empty' if empty else text})"
        if is_dicom(path):
            reason = "a DICOM file, by its content; such are not read here: convert it to PNG"
    raise InputError(f"{path}: {reason}")


def is_dicom(path: Path | str) -> bool:
    """Tell by its content whether a file is DICOM, whatever its ending."""
    with suppress(OSError), open(path, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"
    return False


def resize_square(
    pixels: np.ndarray, *, size: int, interpolation: Interpolation = "bilinear"
) -> np.ndarray:
    """Resize ``uint8 (H, W, 3)`` to a square exactly as `read_image` does."""
    if pixels.shape[:2] == (size, size):
        return pixels
    filter = Image.Resampling[interpolation.upper()]
    return np.asarray(Image.fromarray(pixels).resize((size, size), filter))


def to_rgb(image: Image.Image, *, depth: int = 16) -> Image.Image:
    """Convert any Pillow mode to 8-bit RGB; floats and wider integers have no known unit."""
    if image.mode in SIXTEEN_BIT:
        values, top = np.asarray(image).astype(np.int64), 2**depth - 1
        if values.min() < 0 or values.max() > top:
            kind = "32-bit integers" if _is_32_bit(image) else "pixels"
            raise InputError(
                f"{kind}: expected 0..{top}, got {values.min()}..{values.max()}; save as 8 bit"
                + (", or give another bit_depth" if depth < 16 else "")
            )
        if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
            values = top - values  # Pillow does so for 8 bits alone
        grey = np.round(values / (top / 255)).astype(np.uint8)
        hidden = image.info.get("transparency")
        if isinstance(hidden, int):
            grey[np.asarray(image) == hidden] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "F":
        raise InputError("pixels: expected 8 or 16 bit integers, got floats; save as 8 bit")
    if image.has_transparency_data:
        above = image.convert("RGBA")
        white = Image.new("RGBA", above.size, "white")
        return Image.alpha_composite(white, above).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore warnings of odd metadata; what cannot be decoded is raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class WatchedJpeg(io.BytesIO):
    """A JPEG's bytes, which tell whether its pixels took all of its data and no more."""

    def __init__(self, content: bytes, start: int, end: int) -> None:
        # Filler for a decoder that runs on, such as its last pixels take; a whole one stops
        # within what it reads ahead.
        filler = content[max(start, end - 256) : end]
        super().__init__(content[:end] + filler + b"\xff\xd9")
        self.end = end

    def read(self, count: int | None = -1, /) -> bytes:
        """Read up to the last byte of the data, then byte by byte."""
        left = self.end - 1 - self.tell()
        if left > 0:
            count = left if count is None or count < 0 else min(count, left)
        elif left > -64:
            count = 1
        return super().read(count)

    @property
    def in_step(self) -> bool:
        """Whether decoding stopped at the end of the data."""
        return 0 <= self.tell() - self.end <= PREFETCH


def watch_jpeg(path: Path | str) -> WatchedJpeg | None:
    """Read a JPEG and check its markers; None for other files and JPEGs that are not watched.

    Watched are those of one scan without restart markers: Pillow does not pass on the warnings of
    libjpeg, but how much of the data it needs shows the same.
    """
    with open(path, "rb") as stream:
        if stream.read(2) != b"\xff\xd8":
            return None
        content = b"\xff\xd8" + stream.read()
    place, scans, restarts, start, end, plain = 2, 0, 0, 0, 0, False
    while place + 4 <= len(content):
        marker = content[place + 1]
        if content[place] != 0xFF or not (0xC0 <= marker <= 0xFE and marker != 0xD8):
            if not scans:
                return None  # odd, but before any pixel
            raise InputError("damaged: bytes that are no JPEG marker follow its pixels")
        if marker in (0xD9, 0xFF):  # end of the image, or filler
            place += 1
            if marker == 0xD9:
                break
            continue
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        plain = marker in (0xC0, 0xC1) or (plain and marker not in (0xC2, 0xC9, 0xCA))
        if marker == 0xDD:
            restarts = int.from_bytes(content[place + 4 : place + 6], "big")
        place += 2 + length
        if marker == 0xDA:
            scans, number, start = scans + 1, 0, place
            for found in MARKER.finditer(content, place):
                code = content[found.start() + 1]
                if not 0xD0 <= code <= 0xD7:
                    break
                if not restarts or code != 0xD0 + number % 8:
                    raise InputError("damaged: its restart markers are not in order")
                number += 1
            else:
                return None  # no end: Pillow knows whether something is missing
            place = end = found.start()
    return WatchedJpeg(content, start, end) if plain and scans == 1 and not restarts else None


MARKER = re.compile(rb"\xff[^\x00]", re.DOTALL)  # a 0 after 0xff says that it is data


def survey(paths: Sequence[str], *, bits: int = 0) -> tuple[int, str, str]:
    """Look once at each file of a set that is no JPEG, for what must be said of its pixels.

    Returns the bits that its 16-bit files use, by their highest value unless ``bits`` are given;
    a note on them; and one on pixels that are put on white and pages that are not read. Notes are
    empty where there are no such files; broken ones do not count.
    """

    def look(path: str) -> tuple[int, bool, bool, bool]:
        try:
            with open(path, "rb") as stream:
                if stream.read(2) == b"\xff\xd8":
                    return -1, False, False, False
            with Image.open(path) as opened:
                several = getattr(opened, "n_frames", 1) > 1
                wide = _wide_colour(opened)  # Pillow keeps the upper 8 bits of it
                deep = wide or opened.mode in SIXTEEN_BIT
                top = int(np.asarray(opened).max()) * (257 if wide else 1) if deep else -1
                clear = opened.has_transparency_data
                clear = clear and np.asarray(opened.convert("RGBA"))[..., 3].min() < 255
                return top, clear, several, _is_32_bit(opened)
        except Exception:  # reading the image gives the message
            return -1, False, False, False

    with _quiet(), ThreadPoolExecutor() as pool:  # Pillow decodes without the interpreter's lock
        tops, clear, several, long = np.array([(-1, 0, 0, 0), *pool.map(look, paths)]).T
    of, deep = f"of {len(paths):,} images", tops[tops >= 0]
    lost = [f"{clear.sum():,} {of} have transparent pixels, put on white"] * bool(clear.any())
    if several.any():
        lost.append(f"{several.sum():,} {of} have several pages or frames, the first is used")
    if not len(deep):
        return bits or 16, "", "; ".join(lost)
    bits = bits or next((bits for bits in DEPTHS if deep.max() < 2**bits), 16)
    kind = "16-bit or 32-bit" if long.any() else "16-bit"
    depth = f"{len(deep):,} {of} have {kind} files, highest value {deep.max():,}: "
    depth += f"read as {bits} bit" + "; the others have 8" * (len(deep) < len(paths))
    return bits, depth, "; ".join(lost)


def _is_32_bit(image: Image.Image) -> bool:
    return image.mode == "I" and image.format == "TIFF"  # a PGM of 16 bits has this mode, too


def _wide_colour(opened: Image.Image) -> bool:
    """Tell a colour image of 16 bits per channel, of which Pillow drops the lower 8."""
    tiles = getattr(opened, "tile", [])
    return opened.mode in ("RGB", "RGBA", "LA") and "16" in str(tiles[0][3] if tiles else "")


@lru_cache(maxsize=8)
def _depth_of(paths: tuple[str, ...]) -> int:
    bits, note, _ = survey(paths)
    sys.stderr.write(f"fopro: {note}\n")
    return bits


@dataclass(frozen=True)
class FileReader:
    """Read images from files, row by row; small enough to send to another process."""

    paths: tuple[str, ...]
    interpolation: Interpolation = "bilinear"
    depth: int = 0  # bits that 16-bit files use; 0: found from the highest value in all of them

    def __call__(self, row: int, size: int) -> np.ndarray:
        """Return one image, ``uint8 (size, size, 3)``."""
        how, depth = self.interpolation, self._depth
        return read_image(self.paths[row], size=size, interpolation=how, depth=depth)

    def _depth(self) -> int:
        return self.depth or _depth_of(self.paths)

    def native(self, row: int) -> np.ndarray:
        """Return one image at its own size, ``uint8 (H, W, 3)``."""
        return read_image(self.paths[row], depth=self._depth)

    def take(self, rows: np.ndarray) -> "FileReader":
        """Return a reader of these rows alone."""
        return replace(self, paths=tuple(self.paths[row] for row in rows))


def with_interpolation(reader: Reader, interpolation: Interpolation) -> Reader:
    """Return a reader that resizes with this filter, if it resizes; else the reader itself."""
    if is_dataclass(reader) and hasattr(reader, "interpolation"):
        return cast(Reader, replace(reader, interpolation=interpolation))
    return reader
