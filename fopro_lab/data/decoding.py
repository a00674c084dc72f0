"""Decode image files to 8-bit RGB, with the same rules everywhere."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import cast, get_args

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
    """Decode one file to ``uint8 (size, size, 3)`` or, without a size, to its own ``(H, W, 3)``.

    The whole image is resized to a square, with antialiasing, as the published transforms do.
    The content decides the format, not the suffix. EXIF orientation is applied; grey, palette and
    CMYK become RGB; transparency is composited over white; 16 bit is scaled from 0..65535 to
    0..255; of an animation the first frame is read.
    """
    try:
        with _quiet(), Image.open(path) as opened:
            ImageOps.exif_transpose(opened, in_place=True)  # in place: a copy costs a tenth
            image = to_rgb(opened)
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
        empty = Path(path).is_file() and not Path(path).stat().st_size
        reason = f"cannot be decoded ({'the file is empty' if empty else text})"
    raise InputError(f"{path}: {reason}")


def resize_square(
    pixels: np.ndarray, *, size: int, interpolation: Interpolation = "bilinear"
) -> np.ndarray:
    """Resize ``uint8 (H, W, 3)`` to a square exactly as `read_image` does."""
    if pixels.shape[:2] == (size, size):
        return pixels
    filter = Image.Resampling[interpolation.upper()]
    return np.asarray(Image.fromarray(pixels).resize((size, size), filter))


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to 8-bit RGB; floats and wider integers have no known unit."""
    if image.mode in SIXTEEN_BIT:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(
                f"pixels: expected 0..65535, got {values.min()}..{values.max()}; save as 8 bit"
            )
        return Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")
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


def with_interpolation(reader: Reader, interpolation: Interpolation) -> Reader:
    """Return a reader that resizes with this filter, if it resizes; else the reader itself."""
    if is_dataclass(reader) and hasattr(reader, "interpolation"):
        return cast(Reader, replace(reader, interpolation=interpolation))
    return reader
