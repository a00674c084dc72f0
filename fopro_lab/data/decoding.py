"""Decode image files to 8-bit RGB, with the same rules everywhere."""

import io
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageOps, features

from fopro_lab.config import Interpolation
from fopro_lab.errors import InputError
from fopro_lab.io import quiet, regular

PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a tag of TIFF, and its value for radiographs
Reader = Callable[[int, int], np.ndarray]  # (row, size) to uint8 (size, size, 3)
RULES = "rgb8-3 exact"  # part of a pack's key: change it when pixels change
SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")
DEPTHS = (8, 10, 12, 14, 16)  # bits that instruments use of 16


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

    A JPEG with damaged data is refused; not noticed is damage that leaves its data in step.
    """
    try:
        content = regular(path).read_bytes()
    except OSError as error:
        text = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise InputError(f"{path}: {text}") from None
    try:
        with quiet(), _open(content) as opened:
            tiles: Any = getattr(opened, "tile", None)
            layout = str(tiles[0][3]) if tiles else ""
            if re.match(r"\W*(RGB|LA|CMYK)[^,]*;16", layout):  # Pillow keeps the upper 8 bits
                raise InputError("16 bits per channel are read in grey alone; save as 8 bit")
            ImageOps.exif_transpose(opened, in_place=True)  # in place: a copy costs a tenth
            bits = 16 if opened.mode not in SIXTEEN_BIT else depth() if callable(depth) else depth
            image = to_rgb(opened, depth=bits)
            if size is not None:
                image = image.resize((size, size), Image.Resampling[interpolation.upper()])
            return np.asarray(image)
    except Image.DecompressionBombError:
        reason = "expected at most 179 million pixels; shrink the image first"
    except InputError as error:
        reason = str(error)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever they like on a damaged file
        text = re.sub(r"(file )?<.*>", "file", " ".join(str(error).split())) or type(error).__name__
        reason = f"cannot be decoded ({text if content else 'the file is empty'})"
        if content[128:132] == b"DICM":
            reason = "a DICOM file, by its content; such are not read here: convert it to PNG"
    raise InputError(f"{path}: {reason}")


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
            way_out = "save as 8 bit" + ", or give another bit_depth" * (depth < 16)
            got = f"{values.min()}..{values.max()}"
            raise InputError(f"pixels: expected 0..{top}, got {got}; {way_out}")
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
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _open(content: bytes) -> Image.Image:
    """Open an image. A JPEG is decoded by simplejpeg: to the same pixels, unless it is damaged.

    Pillow keeps to itself what libjpeg says of damaged data.
    """
    opened = Image.open(io.BytesIO(content))
    if not content.startswith(b"\xff\xd8"):
        return opened
    import simplejpeg  # late: data sets without a JPEG do without it

    try:
        kind = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}[opened.mode]
        pixels = simplejpeg.decode_jpeg(content, kind)
    except ValueError as error:  # what is no damage, such as a rare kind, is left to Pillow
        if re.match("corrupt|premature", str(error), re.IGNORECASE):
            raise InputError(f"damaged: {str(error).lower()}") from None
        return opened
    if opened.mode == "CMYK":
        return opened
    decoded = Image.fromarray(pixels.squeeze(axis=2) if opened.mode == "L" else pixels)
    decoded.info = opened.info  # with the orientation
    return decoded


def survey(paths: Sequence[str], *, bits: int = 0) -> tuple[int, str, str]:
    """Look once at each file of a set that is no JPEG, for what must be said of its pixels.

    Returns the bits that its 16-bit files use, by their highest value unless ``bits`` are given;
    a note on them; and one on pixels that are put on white and pages that are not read. Notes are
    empty where there are no such files; broken ones do not count.
    """

    def look(path: str) -> tuple[int, bool, bool]:
        try:
            with open(regular(path), "rb") as stream:
                if stream.read(2) == b"\xff\xd8":
                    return -1, False, False
            with Image.open(path) as opened:
                several = getattr(opened, "n_frames", 1) > 1
                top = int(np.asarray(opened).max()) if opened.mode in SIXTEEN_BIT else -1
                clear = opened.has_transparency_data
                clear = clear and np.asarray(opened.convert("RGBA"))[..., 3].min() < 255
                return top, clear, several
        except Exception:  # reading the image gives the message
            return -1, False, False

    with quiet(), ThreadPoolExecutor() as pool:  # Pillow decodes without the interpreter's lock
        tops, clear, several = np.array([(-1, 0, 0), *pool.map(look, paths)]).T
    of, deep = f"of {len(paths):,} images", tops[tops >= 0]
    lost = [f"{clear.sum():,} {of} have transparent pixels, put on white"] * bool(clear.any())
    if several.any():
        lost.append(f"{several.sum():,} {of} have several pages or frames, the first is used")
    if not len(deep):
        return bits or 16, "", "; ".join(lost)
    bits = bits or next((bits for bits in DEPTHS if deep.max() < 2**bits), 16)
    depth = f"{len(deep):,} {of} have files of more than 8 bits, highest value {deep.max():,}: "
    depth += f"read as {bits} bit" + "; the others have 8" * (len(deep) < len(paths))
    return bits, depth, "; ".join(lost)


@lru_cache(maxsize=8)
def _depth_of(paths: tuple[str, ...]) -> int:
    bits, note, _ = survey(paths)
    sys.stderr.write(f"fopro: {note}\n")
    return bits


@dataclass(frozen=True)
class ImageReader:
    """Reads images row by row; small enough to send to another process."""

    interpolation: Interpolation = field(default="bilinear", kw_only=True)

    def native(self, row: int) -> np.ndarray:
        """Return one image at its own size, ``uint8 (H, W, 3)``."""
        raise NotImplementedError

    def __call__(self, row: int, size: int) -> np.ndarray:
        """Return one image, ``uint8 (size, size, 3)``."""
        return resize_square(self.native(row), size=size, interpolation=self.interpolation)

    def take(self, rows: np.ndarray) -> "ImageReader":
        """Return a reader of these rows alone; each subclass has a field ``rows``."""
        own: Any = self
        return cast(ImageReader, replace(own, rows=tuple(own.rows[row] for row in rows)))


@dataclass(frozen=True)
class FileReader(ImageReader):
    """Reads images from files."""

    rows: tuple[str, ...]  # path of each image
    depth: int = 0  # bits that 16-bit files use; 0: found from the highest value in all of them

    def native(self, row: int, **how: Any) -> np.ndarray:
        """Return one image, as it is or with options of `read_image`, ``uint8 (H, W, 3)``."""
        depth = partial(_depth_of, self.rows) if not self.depth else self.depth
        return read_image(self.rows[row], depth=depth, **how)

    def __call__(self, row: int, size: int) -> np.ndarray:
        """Return one image, resized while it is Pillow's: a way by numpy takes two thirds more."""
        return self.native(row, size=size, interpolation=self.interpolation)
