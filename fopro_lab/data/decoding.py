"""Decode image files to 8-bit RGB, with the same rules everywhere."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image, ImageOps, features

from fopro_lab.config import Interpolation
from fopro_lab.errors import InputError

Reader = Callable[[int, int], np.ndarray]  # (row, size) to uint8 (size, size, 3)
RULES = "rgb8-2 exact"  # part of a pack's key: change it when pixels change
SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def decoder_version(interpolation: Interpolation = "bilinear") -> str:
    """Name everything that decides the pixels: our rules, Pillow and its JPEG library."""
    if interpolation not in get_args(Interpolation):
        known = ", ".join(f"'{word}'" for word in get_args(Interpolation))
        raise InputError(f"interpolation: expected one of {known}, got '{interpolation}'")
    return f"{RULES} {interpolation} pillow {Image.__version__} jpeg {features.version('jpg')}"


def read_image(
    path: Path | str, *, size: int | None = None, interpolation: Interpolation = "bilinear"
) -> np.ndarray:
    """Decode one file, and resize it to a square.

    The whole image is resized, without keeping its aspect ratio, as the published transforms do,
    and with antialiasing. The content decides the format, not the file's suffix. EXIF orientation
    is applied. Grey, palette and CMYK become RGB; transparency is composited over white; 16 bit is
    scaled from 0..65535 to 0..255, so that images stay comparable; of an animation the first
    frame is read.

    Args:
        path: The image.
        size: Side of the result, pixels; None keeps the image's own height and width.
        interpolation: Filter of the resize: box, bilinear, bicubic or lanczos.

    Returns:
        ``uint8 (size, size, 3)``, or ``(H, W, 3)`` at its own size.
    """
    with _one_line_errors(path), Image.open(path) as opened:
        ImageOps.exif_transpose(opened, in_place=True)  # in place: a copy costs a tenth
        image = to_rgb(opened)
        if size is not None:
            image = image.resize((size, size), Image.Resampling[interpolation.upper()])
        return np.asarray(image)


def resize_square(
    pixels: np.ndarray, *, size: int, interpolation: Interpolation = "bilinear"
) -> np.ndarray:
    """Resize ``uint8 (H, W, 3)`` to a square exactly as `read_image` does."""
    if pixels.shape[:2] == (size, size):
        return pixels
    filter = Image.Resampling[interpolation.upper()]
    return np.asarray(Image.fromarray(pixels).resize((size, size), filter))


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to 8-bit RGB."""
    if image.mode in SIXTEEN_BIT:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(
                f"pixels: expected 0..65535, got {values.min()}..{values.max()}; save as 8 bit"
            )
        grey = np.round(values / 257).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "F":
        raise InputError("pixels: expected 8 or 16 bit integers, got floats; save as 8 bit")
    if image.has_transparency_data:
        above = image.convert("RGBA")
        white = Image.new("RGBA", above.size, "white")
        return Image.alpha_composite(white, above).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


@contextmanager
def _one_line_errors(path: Path | str) -> Iterator[None]:
    """Turn whatever a damaged file raises into one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata; what cannot be decoded is raised
            yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Image.DecompressionBombError:
        raise InputError(
            f"{path}: expected at most 179 million pixels; shrink the image first"
        ) from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever they like on a damaged file
        text = " ".join(str(error).split()) or type(error).__name__
        reason = text.replace(repr(str(path)), "the file").replace(str(path), "the file")
        if Path(path).is_file() and not Path(path).stat().st_size:
            reason = "the file is empty"
        raise InputError(f"{path}: cannot be decoded ({reason})") from None


@dataclass(frozen=True)
class FileReader:
    """Read images from files, row by row; small enough to send to another process."""

    paths: tuple[str, ...]
    interpolation: Interpolation = "bilinear"

    def __call__(self, row: int, size: int) -> np.ndarray:
        """Return one image, ``uint8 (size, size, 3)``."""
        return read_image(self.paths[row], size=size, interpolation=self.interpolation)

    def native(self, row: int) -> np.ndarray:
        """Return one image at its own size, ``uint8 (H, W, 3)``."""
        return read_image(self.paths[row])

    def take(self, rows: np.ndarray) -> "FileReader":
        """Return a reader of these rows alone."""
        return replace(self, paths=tuple(self.paths[row] for row in rows))

    def with_interpolation(self, interpolation: Interpolation) -> "FileReader":
        """Return a reader that resizes with this filter."""
        return replace(self, interpolation=interpolation)


def with_interpolation(reader: Reader, interpolation: Interpolation) -> Reader:
    """Return a reader that resizes with this filter, if the reader can; else the reader itself."""
    if hasattr(reader, "with_interpolation"):
        changed: Reader = reader.with_interpolation(interpolation)
        return changed
    return reader
