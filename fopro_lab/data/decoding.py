"""One picture file to RGB pixels of 8 bit, the same way everywhere."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, features

from fopro_lab.errors import InputError

DECODER = "rgb8-bilinear-1"  # part of a pack's key: raise the number when pixels change
LARGEST = 178_956_970  # pixels; PIL's limit, above it a small file may fill the memory
SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def decoder_version() -> str:
    """Name everything that decides the pixels: our rules, PIL and its JPEG library.

    Example:
        >>> decoder_version().startswith("rgb8-bilinear-")
        True
    """
    return f"{DECODER} pillow {Image.__version__} jpeg {features.version('jpg')}"


def read_picture(path: Path | str, *, size: int) -> np.ndarray:
    """Decode one file and resize it to a square.

    The whole picture is resized, without keeping its aspect, as the published transforms do:
    bilinear with antialiasing. EXIF orientation is applied. Grey, palette and CMYK become RGB;
    transparency is laid on white; 16 bit is scaled from 0..65535 to 0..255, so that pictures
    stay comparable; of an animation the first frame is read.

    Args:
        path: The picture.
        size: Side of the result, pixels.

    Returns:
        ``uint8 (size, size, 3)``, RGB.

    Raises:
        InputError: If the file is missing, damaged, no picture, or larger than 179 million pixels.

    Example:
        >>> read_picture("nowhere.jpg", size=8)
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.jpg: no such file
    """
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > LARGEST:
                raise Image.DecompressionBombError
            picture = to_rgb(ImageOps.exif_transpose(opened))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = LARGEST // 1_000_000 + 1
        raise InputError(
            f"{path}: expected at most {limit} million pixels; shrink the picture first"
        ) from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever they like on a damaged file
        reason = str(error).replace(str(path), "the file").replace(repr(str(path)), "the file")
        raise InputError(f"{path}: cannot be decoded ({reason})") from None
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))


def to_rgb(picture: Image.Image) -> Image.Image:
    """Convert any of PIL's modes to RGB of 8 bit.

    Args:
        picture: Grey, palette, CMYK, transparent, 16-bit, ...

    Returns:
        The picture in mode ``RGB``.

    Raises:
        InputError: For floating point pixels, or integers beyond 0..65535, whose unit is unknown.

    Example:
        >>> to_rgb(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))  # transparent black
        (255, 255, 255)
    """
    if picture.mode in SIXTEEN_BIT:
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(
                f"pixels: expected 0..65535, got {values.min()}..{values.max()}; save as 8 bit"
            )
        grey = np.round(values / 257).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if picture.mode == "F":
        raise InputError("pixels: expected 8 or 16 bit integers, got floats; save as 8 bit")
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        below = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(below, over).convert("RGB")
    return picture.convert("RGB")


@dataclass(frozen=True)
class FileReader:
    """Read row by row from files; small enough to send to another process.

    Example:
        >>> FileReader(("a.png", "b.png")).take(np.array([1])).paths
        ('b.png',)
    """

    paths: tuple[str, ...]

    def __call__(self, row: int, size: int) -> np.ndarray:
        """Return the pixels of one row, ``uint8 (size, size, 3)``."""
        return read_picture(self.paths[row], size=size)

    def take(self, rows: np.ndarray) -> "FileReader":
        """Return a reader of these rows alone."""
        return FileReader(tuple(self.paths[row] for row in rows))


def resize_square(pixels: np.ndarray, *, size: int) -> np.ndarray:
    """Resize ``uint8 (H, W, 3)`` to a square as `read_picture` does.

    Example:
        >>> resize_square(np.full((4, 4, 3), 7, np.uint8), size=2).tolist()[0]
        [[7, 7, 7], [7, 7, 7]]
    """
    if pixels.shape[:2] == (size, size):
        return pixels
    picture = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture)
