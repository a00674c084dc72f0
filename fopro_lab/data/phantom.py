"""Phantom lesions: generated images whose classes, groups and spectra are known.

A class shows partly in shape and colour, which overlap between classes, and partly in a texture
of its own ring of frequencies inside the lesion. Nothing here is medical.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fopro_lab.data.decoding import ImageReader
from fopro_lab.data.sampling import share_out

SIDE = 64  # pixels
HARMONICS = np.arange(2, 10)  # of the contour
WAVES = 24  # plane waves in a field; more look no different
_AXIS = np.arange(SIDE) - (SIDE - 1) / 2


@dataclass(frozen=True)
class LesionClass:
    """What the lesions of a class have in common; lengths in pixels."""

    name: str
    band: tuple[float, float]  # ring of the texture, cycles per pixel
    colour: tuple[float, float, float]  # mean RGB, 0 to 1
    radius: float  # mean
    stretch: float = 0.08  # log of the ellipse's axis ratio
    ragged: float = 0.07  # relative spread of the border
    lobes: float = 0.0  # relative height of three to five lobes
    softness: float = 1.2  # width of the border
    blotches: float = 0.15  # strength of darker patches inside


def draw_view(
    kind: LesionClass, lesion: np.random.Generator, view: np.random.Generator, *, sharp: bool
) -> np.ndarray:
    """Draw one image of a lesion of a class, ``uint8 (64, 64, 3)``, RGB.

    ``lesion`` draws what all its images share, ``view`` the rest. It is taken by a sharpening
    device with vignette and more hair, or by a soft, noisy one.
    """
    rng = lesion
    spread = kind.ragged * np.exp(0.35 * rng.normal())
    contour = rng.normal(size=8) + 1j * rng.normal(size=8)  # one coefficient per harmonic
    contour = contour * spread * (2.0 / HARMONICS) ** 1.7
    if kind.lobes:
        lobe = rng.integers(1, 4)  # harmonics 3, 4 or 5
        contour[lobe] += kind.lobes * np.exp(0.3 * rng.normal() + 2j * np.pi * rng.random())
    skin = np.array([0.86, 0.68, 0.60]) + 0.05 * rng.normal() * np.array([0.8, 1.0, 1.05])
    tone = 0.09 * rng.normal() + 0.018 * rng.normal(size=3)
    colour = np.clip(np.array(kind.colour) + tone, 0.08, 0.85)
    radius = float(np.clip(kind.radius * np.exp(0.2 * rng.normal()), 9, 26))
    stretch = kind.stretch * np.exp(0.4 * rng.normal())
    softness = kind.softness * np.exp(0.25 * rng.normal())
    rim = colour + rng.uniform(0.0, 0.14) * np.array([1.0, 0.85, 0.7])
    skin = np.clip(skin + 0.008 * rng.normal(size=3), 0.3, 0.95)
    halo = rng.uniform(0.0, 0.09)
    blotch_height = kind.blotches * np.exp(0.4 * rng.normal())
    texture_height = 0.08 * np.exp(0.35 * rng.normal())
    texture_waves = _sample_waves(rng, kind.band)
    blotches = _sample_waves(rng, (0.015, 0.045))
    mottling_waves = _sample_waves(rng, (0.008, 0.12), falling=True)

    rng = view
    ranges = ((0, np.pi), (-26, 26), (-0.012, 0.012), (0.3, 0.65))
    count = rng.poisson(1.1 if sharp else 0.25)
    hairs = np.stack([rng.uniform(low, high, count) for low, high in ranges], axis=1)
    angle, zoom = rng.uniform(0, 2 * np.pi), float(np.exp(0.06 * rng.normal()))
    shift = rng.uniform(-4, 4, 2)
    light = np.exp(0.06 * rng.normal() + 0.015 * rng.normal(size=3))  # gain of each channel
    slope = 0.07 * rng.normal(size=2)  # relative change of the light across the image, x and y
    vignette = rng.uniform(0.2, 0.55) if sharp else 0.0
    strength = rng.uniform(0.5, 0.9) if sharp else rng.uniform(0.45, 0.7)
    noise = rng.standard_normal((SIDE, SIDE, 3), dtype=np.float32) * (0.006 if sharp else 0.018)

    # The lesion on its skin; the matrix leads from the image's to the lesion's frame.
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    matrix = np.array([[cosine, sine], [-sine, cosine]])
    depth, edge = _depth(radius, stretch, contour, matrix, shift)
    inside = 1 / (1 + np.exp(-np.clip(edge / softness, -30, 30)))
    around = np.exp(-(np.minimum(edge + 2, 0) ** 2) / 40)
    mottling = _field(mottling_waves, matrix, shift)[..., None]
    redness = np.array([0.2, 1.0, 1.0]) * halo * around[..., None]
    skin = skin * (1 + 0.03 * mottling) - redness
    centre = np.clip(depth * 2.2, 0, 1)[..., None]
    body = rim + (colour - rim) * centre
    dark = 1 / (1 + np.exp(-4 * (_field(blotches, matrix, shift) - 0.4)))
    body = body * (1 - blotch_height * dark[..., None])
    texture = np.clip(_field(texture_waves, matrix, shift), -2.5, 2.5)
    body = body * (1 + texture_height * texture[..., None])
    image = skin + (body - skin) * inside[..., None]

    # Light, hair, and the spectrum and noise of the device.
    x, y = _AXIS[None, :], _AXIS[:, None]
    far = np.clip(np.hypot(y, x) / (SIDE / 2) - 0.55, 0, None)
    shade = (1 + (slope[0] * x + slope[1] * y) / (SIDE / 2)) * (1 - vignette * far**1.5)
    image = image * light * shade[..., None]
    for direction, offset, bend, darkness in hairs:
        along = x * np.cos(direction) + y * np.sin(direction)
        across = y * np.cos(direction) - x * np.sin(direction)
        hair = darkness * np.exp(-((across - offset - bend * along**2) ** 2) / 0.6)
        image = image * (1 - hair[..., None])
    squared = np.fft.fftfreq(SIDE)[:, None] ** 2 + np.fft.rfftfreq(SIDE)[None, :] ** 2
    if sharp:
        transfer = 1 + strength * (1 - np.exp(-2 * np.pi**2 * squared))
    else:
        transfer = np.exp(-2 * np.pi**2 * strength**2 * squared)
    spectrum = np.fft.rfft2(image, axes=(0, 1)) * transfer[..., None]
    image = np.fft.irfft2(spectrum, s=(SIDE, SIDE), axes=(0, 1)) + noise
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _sample_waves(
    rng: np.random.Generator, band: tuple[float, float], *, falling: bool = False
) -> np.ndarray:
    """Draw waves ``(N, 3)`` of a ring, evenly over its area or as 1/f: frequencies and phase."""
    low, high = band
    part = rng.random(WAVES)
    size = low * (high / low) ** part if falling else np.sqrt(low**2 + part * (high**2 - low**2))
    angle = rng.uniform(0, 2 * np.pi, WAVES)
    phase = rng.uniform(0, 2 * np.pi, WAVES)
    return np.stack([size * np.cos(angle), size * np.sin(angle), phase], axis=1)


def _field(waves: np.ndarray, matrix: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Sum the waves as the view sees them, to variance 1; each is a product of row and column."""
    vectors = 2 * np.pi * waves[:, :2] @ matrix
    across = vectors[:, :1] * _AXIS + (waves[:, 2] - vectors @ shift)[:, None]
    down = vectors[:, 1:] * _AXIS
    # cos(a + b) as one real product of matrices: half the work of a complex one.
    rows = np.concatenate([np.cos(down), -np.sin(down)])
    columns = np.sqrt(2 / WAVES) * np.stack([np.cos(across), np.sin(across)])
    return rows.T @ columns.reshape(len(rows), SIDE)


def _depth(
    radius: float, stretch: float, contour: np.ndarray, matrix: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the depth below the border, as a share of the radius there and in pixels."""
    x, y = _AXIS[None, :] - shift[0], _AXIS[:, None] - shift[1]
    u = (matrix[0, 0] * x + matrix[0, 1] * y) * np.exp(-stretch)
    v = (matrix[1, 0] * x + matrix[1, 1] * y) * np.exp(stretch)
    turn = (u + 1j * v) / np.maximum(np.hypot(u, v), 1e-9)
    border, power = np.zeros_like(u), turn
    for coefficient in contour:
        power = power * turn
        border += (coefficient * power).real
    border = radius * np.exp(np.clip(border, -0.5, 0.4))
    share = 1 - np.hypot(u, v) / border
    return share, share * border


VERSION = "phantom-1"  # part of the fingerprint: raise the number when pixels change
IMAGES = 3000
TAIL_RATIO = 100  # images of the largest class to images of the smallest
SOURCES = ("soft", "sharp")
CLASSES = (
    LesionClass("disc", (0.050, 0.085), (0.52, 0.34, 0.25), radius=18.0, ragged=0.05),
    LesionClass("oval", (0.085, 0.125), (0.48, 0.31, 0.23), radius=17.0, stretch=0.25),
    LesionClass("lobed", (0.125, 0.165), (0.54, 0.35, 0.26), radius=18.0, lobes=0.10),
    LesionClass("ragged", (0.165, 0.205), (0.42, 0.27, 0.21), radius=19.0, ragged=0.12),
    LesionClass("pale", (0.205, 0.250), (0.64, 0.44, 0.37), radius=17.0, softness=1.8),
    LesionClass("blotched", (0.250, 0.300), (0.47, 0.32, 0.26), radius=19.0, blotches=0.38),
    LesionClass("dark", (0.300, 0.355), (0.35, 0.23, 0.19), radius=16.0, stretch=0.12),
    LesionClass("red", (0.355, 0.420), (0.56, 0.30, 0.25), radius=16.0, softness=1.5),
)
CLASS_NAMES = tuple(lesion.name for lesion in CLASSES)


def phantom_table(images: int = IMAGES, *, seed: int = 0) -> pd.DataFrame:
    """List the images of a phantom data set; none is drawn yet.

    Class ``i`` of 8 gets a share that falls as ``100^(-i/7)``, and at least three images of
    three lesions. A group is a lesion, seen in one to three images. A smaller set is part of
    every larger one with the same seed.
    """
    steps = np.arange(len(CLASSES)) / (len(CLASSES) - 1)
    shares = np.round(1e9 * TAIL_RATIO**-steps).astype(np.int64)
    rows = []
    for label, count in enumerate(share_out(shares, total=images, least=3)):
        views = (  # the first three lesions have one, so that small classes have three groups
            (lesion, view)
            for lesion in itertools.count()
            for view in range(1 if lesion < 3 else 1 + lesion % 3)
        )
        for lesion, view in itertools.islice(views, count):
            group = f"{CLASS_NAMES[label]}-{lesion:05d}"
            source = SOURCES[_lesion_source(seed, label, lesion)]
            rows.append((f"{group}-{view}", label, group, "", source, ""))
    return pd.DataFrame(rows, columns=["image", "label", "group", "path", "source", "split"])


@dataclass(frozen=True)
class PhantomReader(ImageReader):
    """Draw images row by row, from their names in `phantom_table` and the seed alone."""

    seed: int
    rows: tuple[str, ...]  # name of each image

    def native(self, row: int) -> np.ndarray:
        """Return one image as it is drawn, ``uint8 (64, 64, 3)``."""
        name, lesion_text, view_text = self.rows[row].split("-")
        kind = CLASS_NAMES.index(name), int(lesion_text)
        own, shown = (np.random.default_rng([self.seed, *kind, n]) for n in (0, 2 + int(view_text)))
        return draw_view(CLASSES[kind[0]], own, shown, sharp=_lesion_source(self.seed, *kind) == 1)


def _lesion_source(seed: int, label: int, lesion: int) -> int:
    """Draw a lesion's source: the tail is seen more often by the sharp one, as in real archives."""
    rng = np.random.default_rng([seed, label, lesion, 1])
    return int(rng.random() < 0.35 + 0.3 * label / (len(CLASSES) - 1))
