"""Photographs to time decoders with: noise that falls off as in nature, as JPEGs of 1024 px."""

from pathlib import Path

import numpy as np
from PIL import Image

from fopro_lab.data import Pack, open_dataset, pack

SIDE = 1024  # pixels, as most of ISIC 2019
QUALITY = 90  # gives about 190 kB an image, ISIC 2019's mean


def write_photographs(folder: Path, *, count: int, side: int = SIDE, seed: int = 0) -> list[Path]:
    """Write images that cost a decoder what dermoscopy costs it.

    Amplitudes fall as the frequency to the power of -1.4 and the channels mostly agree, as in skin
    seen from near; a decoder's time follows the bytes of a JPEG, which follow the spectrum.

    Args:
        folder: Where to write.
        count: How many.
        side: Of each, pixels.
        seed: Another seed gives other images.

    Returns:
        Their paths.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     [path] = write_photographs(Path(place), count=1, side=64)
        ...     with Image.open(path) as image:
        ...         image.size
        (64, 64)
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        pixels = _photograph(side, np.random.default_rng([seed, number]))
        Image.fromarray(pixels).save(path, quality=QUALITY)
    return paths


def photograph_pack(folder: Path, *, size: int, count: int) -> Pack:
    """Pack photographs of two classes, drawn at the size that they are shown in.

    Args:
        folder: Where images and pack go.
        size: Their side, pixels.
        count: How many, half of each class.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     photograph_pack(Path(place), size=16, count=4).images.shape
        (4, 16, 16, 3)
    """
    for name, part in (("a", count // 2), ("b", count - count // 2)):
        write_photographs(folder / "photographs" / name, count=part, side=size, seed=ord(name))
    return pack(open_dataset(folder / "photographs"), size, cache=folder, progress=False)


def _photograph(side: int, rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1 / side
    noise = rng.standard_normal((4, *frequency.shape), dtype=np.float32)
    fields = np.fft.irfft2((noise[:2] + 1j * noise[2:]) / frequency**1.4, s=(side, side))
    shared, tint = fields / fields.std(axis=(1, 2), keepdims=True)
    skin = np.array([0.75, 0.58, 0.52])
    grain = 0.006 * rng.standard_normal((side, side), dtype=np.float32)  # of the sensor
    light = skin + (0.11 * shared + grain)[..., None] + 0.02 * tint[..., None] * [1.0, -0.5, -0.5]
    return np.round(255 * np.clip(light, 0, 1)).astype(np.uint8)
