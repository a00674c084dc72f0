"""One image file to RGB pixels of 8 bit, the same way everywhere."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image, ImageOps, features

from fopro_lab.config import Decoder, Interpolation
from fopro_lab.errors import InputError

Reader = Callable[[int, int], np.ndarray]
RULES = "rgb8-2"  # part of a pack's key: raise the number when pixels change
LARGEST = 178_956_970  # pixels; PIL's limit, above it a small file may fill the memory
SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")
FILTERS: dict[Interpolation, Image.Resampling] = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def decoder_version(decoder: Decoder = "exact", interpolation: Interpolation = "bilinear") -> str:
    """Name everything that decides the pixels: our rules, PIL and its JPEG library.

    Args:
        decoder: As of `read_image`.
        interpolation: As of `read_image`.

    Returns:
        One line.

    Raises:
        InputError: For another decoder or interpolation.

    Example:
        >>> decoder_version("draft", "box").startswith("rgb8-2 draft box pillow ")
        True
    """
    for name, value, known in (
        ("decoder", decoder, get_args(Decoder)),
        ("interpolation", interpolation, get_args(Interpolation)),
    ):
        if value not in known:
            told = ", ".join(f"'{word}'" for word in known)
            raise InputError(f"{name}: expected one of {told}, got '{value}'")
    libraries = f"pillow {Image.__version__} jpeg {features.version('jpg')}"
    return f"{RULES} {decoder} {interpolation} {libraries}"


def read_image(
    path: Path | str,
    *,
    size: int,
    decoder: Decoder = "exact",
    interpolation: Interpolation = "bilinear",
) -> np.ndarray:
    """Decode one file and resize it to a square.

    The whole image is resized, without keeping its aspect, as the published transforms do,
    and with antialiasing. The content decides the format, not the file's ending. EXIF
    orientation is applied. Grey, palette and CMYK become RGB; transparency is laid on white;
    16 bit is scaled from 0..65535 to 0..255, so that images stay comparable; of an animation
    the first frame is read.

    Args:
        path: The image.
        size: Side of the result, pixels.
        decoder: ``exact``: every pixel as PIL gives it. ``draft``: the JPEG library halves the
            image once to three times while decoding, as long as both sides stay at least
            ``2 * size``; other formats, and JPEGs too small for it, are read exactly. Of 1024 px
            to 224 it takes half the time; pixels differ by 0.2 of 255 in the mean, by 2 at most.
        interpolation: Of the resize.

    Returns:
        ``uint8 (size, size, 3)``, RGB.

    Raises:
        InputError: If the file is missing, damaged, no image, or larger than 179 million pixels.

    Example:
        >>> read_image("nowhere.jpg", size=8)
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.jpg: no such file
    """
    with _told_in_a_line(path):
        return _decode(path, size, decoder, FILTERS[interpolation])


def read_native(path: Path | str) -> np.ndarray:
    """Decode one file at its own size, exactly, by the rules of `read_image`.

    Args:
        path: The image.

    Returns:
        ``uint8 (H, W, 3)``, RGB.

    Raises:
        InputError: As `read_image`.

    Example:
        >>> read_native("nowhere.jpg")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.jpg: no such file
    """
    with _told_in_a_line(path), Image.open(path) as opened:
        _check_pixels(opened)
        ImageOps.exif_transpose(opened, in_place=True)
        return np.asarray(to_rgb(opened))


@contextmanager
def _told_in_a_line(path: Path | str) -> Iterator[None]:
    """Turn whatever a damaged file raises into one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata; what cannot be decoded is raised
            yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Image.DecompressionBombError:
        limit = LARGEST // 1_000_000 + 1
        raise InputError(
            f"{path}: expected at most {limit} million pixels; shrink the image first"
        ) from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever they like on a damaged file
        told = " ".join(str(error).split()) or type(error).__name__
        reason = told.replace(repr(str(path)), "the file").replace(str(path), "the file")
        if Path(path).is_file() and not Path(path).stat().st_size:
            reason = "the file is empty"
        raise InputError(f"{path}: cannot be decoded ({reason})") from None


def _decode(
    path: Path | str, size: int, decoder: Decoder, resampling: Image.Resampling
) -> np.ndarray:
    with Image.open(path) as opened:
        _check_pixels(opened)
        whole = opened.size
        drafted = opened.draft(None, (2 * size, 2 * size)) if decoder == "draft" else None
        if drafted is not None and opened.size != whole:
            # The library rounds sides up. The box is the true extent: without it the image
            # would be stretched by up to a pixel, a difference ten times that of the shrinking.
            image = to_rgb(opened).resize((size, size), resampling, box=drafted[1])
            ImageOps.exif_transpose(image, in_place=True)
        else:
            ImageOps.exif_transpose(opened, in_place=True)  # in place: a copy costs a tenth
            image = to_rgb(opened).resize((size, size), resampling)
        return np.asarray(image)


def _check_pixels(opened: Image.Image) -> None:
    if opened.width * opened.height > LARGEST:
        raise Image.DecompressionBombError


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any of PIL's modes to RGB of 8 bit.

    Args:
        image: Grey, palette, CMYK, transparent, 16-bit, ...

    Returns:
        The image in mode ``RGB``; the same object if it was that already.

    Raises:
        InputError: For floating point pixels, or integers beyond 0..65535, whose unit is unknown.

    Example:
        >>> to_rgb(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))  # transparent black
        (255, 255, 255)
    """
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
        over = image.convert("RGBA")
        below = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(below, over).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


@dataclass(frozen=True)
class FileReader:
    """Read row by row from files; small enough to send to another process.

    Example:
        >>> FileReader(("a.png", "b.png")).take(np.array([1])).paths
        ('b.png',)
    """

    paths: tuple[str, ...]
    decoder: Decoder = "exact"
    interpolation: Interpolation = "bilinear"

    def __call__(self, row: int, size: int) -> np.ndarray:
        """Return the pixels of one row, ``uint8 (size, size, 3)``."""
        return read_image(
            self.paths[row], size=size, decoder=self.decoder, interpolation=self.interpolation
        )

    def native(self, row: int) -> np.ndarray:
        """Return one image at its own size, decoded exactly, ``uint8 (H, W, 3)``."""
        return read_native(self.paths[row])

    def take(self, rows: np.ndarray) -> "FileReader":
        """Return a reader of these rows alone."""
        return replace(self, paths=tuple(self.paths[row] for row in rows))

    def with_rules(self, *, decoder: Decoder, interpolation: Interpolation) -> "FileReader":
        """Return a reader of the same files that decodes and resizes so."""
        return replace(self, decoder=decoder, interpolation=interpolation)


def with_rules(reader: Reader, *, decoder: Decoder, interpolation: Interpolation) -> Reader:
    """Return a reader that decodes and resizes so, if it is one that can.

    Args:
        reader: Any; one that has a method ``with_rules`` is asked for the reader.
        decoder: As of `read_image`; readers without files ignore it.
        interpolation: As of `read_image`.

    Returns:
        Another reader of the same rows, or ``reader`` itself.

    Example:
        >>> with_rules(FileReader(("a.png",)), decoder="draft", interpolation="box").decoder
        'draft'
    """
    if hasattr(reader, "with_rules"):
        ruled: Reader = reader.with_rules(decoder=decoder, interpolation=interpolation)
        return ruled
    return reader


def resize_square(
    pixels: np.ndarray, *, size: int, interpolation: Interpolation = "bilinear"
) -> np.ndarray:
    """Resize ``uint8 (H, W, 3)`` to a square as `read_image` does.

    Example:
        >>> resize_square(np.full((4, 4, 3), 7, np.uint8), size=2).tolist()[0]
        [[7, 7, 7], [7, 7, 7]]
    """
    if pixels.shape[:2] == (size, size):
        return pixels
    image = Image.fromarray(pixels).resize((size, size), FILTERS[interpolation])
    return np.asarray(image)
