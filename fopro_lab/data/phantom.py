"""Phantom lesions: generated images whose classes, groups and spectra are known.

A class shows partly in shape and colour, which overlap between classes, and partly in a texture
of its own ring of frequencies inside the lesion. Nothing here is medical.
"""

import itertools
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from fopro_lab.config import Interpolation
from fopro_lab.data.decoding import resize_square
from fopro_lab.data.sampling import share_out

SIDE = 64  # pixels
HARMONICS = np.arange(2, 10)  # of the contour
WAVES = 24  # plane waves in a field; more look no different
_AXIS = np.arange(SIDE) - (SIDE - 1) / 2
_RADIUS = np.hypot(_AXIS[:, None], _AXIS[None, :]) / (SIDE / 2)
_FREQUENCY_SQUARED = (
    np.fft.fftfreq(SIDE)[:, None] ** 2 + np.fft.rfftfreq(SIDE)[None, :] ** 2
)  # (cycles per pixel)^2


@dataclass(frozen=True)
class LesionClass:
    """What the lesions of a class have in common."""

    name: str
    band: tuple[float, float]  # ring of the texture, cycles per pixel
    colour: tuple[float, float, float]  # mean RGB, 0 to 1
    radius: float  # mean, pixels
    stretch: float = 0.08  # log of the ellipse's axis ratio
    ragged: float = 0.07  # relative spread of the border
    lobes: float = 0.0  # relative height of three to five lobes
    softness: float = 1.2  # width of the border, pixels
    blotches: float = 0.15  # strength of darker patches inside


class Waves(NamedTuple):
    """A random field of variance 1: waves' vectors ``(N, 2)``, cycles per pixel, and phases."""

    vectors: np.ndarray
    phases: np.ndarray


class Lesion(NamedTuple):
    """One lesion, in its own frame."""

    radius: float
    stretch: float
    contour: np.ndarray  # complex, one coefficient a harmonic
    softness: float
    colour: np.ndarray
    rim: np.ndarray
    skin: np.ndarray
    halo: float
    blotch_height: float
    texture_height: float
    texture: Waves
    blotches: Waves
    mottling: Waves


class View(NamedTuple):
    """One image of a lesion: where it lies, the light, and the device."""

    angle: float
    zoom: float
    shift: np.ndarray
    light: np.ndarray  # gain of each channel
    slope: np.ndarray  # relative change of the light across the image, x and y
    vignette: float
    hairs: np.ndarray  # (N, 4): direction, offset, bend, darkness
    sharpness: float  # below 0 blurs, above 0 sharpens
    noise: np.ndarray


def sample_lesion(kind: LesionClass, rng: np.random.Generator) -> Lesion:
    """Draw what all images of one lesion of a class share."""
    spread = kind.ragged * np.exp(0.35 * rng.normal())
    contour = rng.normal(size=8) + 1j * rng.normal(size=8)
    contour = contour * spread * (2.0 / HARMONICS) ** 1.7
    if kind.lobes:
        lobe = rng.integers(1, 4)  # harmonics 3, 4 or 5
        contour[lobe] += kind.lobes * np.exp(0.3 * rng.normal() + 2j * np.pi * rng.random())
    skin = np.array([0.86, 0.68, 0.60]) + 0.05 * rng.normal() * np.array([0.8, 1.0, 1.05])
    tone = 0.09 * rng.normal() + 0.018 * rng.normal(size=3)
    colour = np.clip(np.array(kind.colour) + tone, 0.08, 0.85)
    return Lesion(
        radius=float(np.clip(kind.radius * np.exp(0.2 * rng.normal()), 9, 26)),
        stretch=kind.stretch * np.exp(0.4 * rng.normal()),
        contour=contour,
        softness=kind.softness * np.exp(0.25 * rng.normal()),
        colour=colour,
        rim=colour + rng.uniform(0.0, 0.14) * np.array([1.0, 0.85, 0.7]),
        skin=np.clip(skin + 0.008 * rng.normal(size=3), 0.3, 0.95),
        halo=rng.uniform(0.0, 0.09),
        blotch_height=kind.blotches * np.exp(0.4 * rng.normal()),
        texture_height=0.08 * np.exp(0.35 * rng.normal()),
        texture=_sample_waves(rng, kind.band),
        blotches=_sample_waves(rng, (0.015, 0.045)),
        mottling=_sample_waves(rng, (0.008, 0.12), falling=True),
    )


def sample_view(rng: np.random.Generator, *, sharp: bool) -> View:
    """Draw place, light and device of one image.

    Args:
        rng: Random numbers of this image alone.
        sharp: The sharpening device with vignette and more hair, else the soft, noisy one.
    """
    count = rng.poisson(1.1 if sharp else 0.25)
    ranges = ((0, np.pi), (-26, 26), (-0.012, 0.012), (0.3, 0.65))
    hairs = np.stack([rng.uniform(low, high, count) for low, high in ranges], axis=1)
    return View(
        angle=rng.uniform(0, 2 * np.pi),
        zoom=float(np.exp(0.06 * rng.normal())),
        shift=rng.uniform(-4, 4, 2),
        light=np.exp(0.06 * rng.normal() + 0.015 * rng.normal(size=3)),
        slope=0.07 * rng.normal(size=2),
        vignette=rng.uniform(0.2, 0.55) if sharp else 0.0,
        hairs=hairs,
        sharpness=rng.uniform(0.5, 0.9) if sharp else -rng.uniform(0.45, 0.7),
        noise=rng.standard_normal((SIDE, SIDE, 3), dtype=np.float32) * (0.006 if sharp else 0.018),
    )


def render_view(lesion: Lesion, view: View) -> np.ndarray:
    """Compute the pixels of one image, ``uint8 (64, 64, 3)``, RGB."""
    depth, edge = _depth(lesion, view)
    inside = 1 / (1 + np.exp(-np.clip(edge / lesion.softness, -30, 30)))
    around = np.exp(-(np.minimum(edge + 2, 0) ** 2) / 40)
    mottling = _field(lesion.mottling, view)[..., None]
    redness = np.array([0.2, 1.0, 1.0]) * lesion.halo * around[..., None]
    skin = lesion.skin * (1 + 0.03 * mottling) - redness
    centre = np.clip(depth * 2.2, 0, 1)[..., None]
    body = lesion.rim + (lesion.colour - lesion.rim) * centre
    dark = 1 / (1 + np.exp(-4 * (_field(lesion.blotches, view) - 0.4)))
    body = body * (1 - lesion.blotch_height * dark[..., None])
    texture = np.clip(_field(lesion.texture, view), -2.5, 2.5)
    body = body * (1 + lesion.texture_height * texture[..., None])
    image = skin + (body - skin) * inside[..., None]
    return _photograph(image, view)


def _sample_waves(
    rng: np.random.Generator, band: tuple[float, float], falling: bool = False
) -> Waves:
    """Draw waves of a ring, evenly over its area, or falling as 1/f; the field has variance 1."""
    low, high = band
    part = rng.random(WAVES)
    size = low * (high / low) ** part if falling else np.sqrt(low**2 + part * (high**2 - low**2))
    angle = rng.uniform(0, 2 * np.pi, WAVES)
    vectors = size[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Waves(vectors, rng.uniform(0, 2 * np.pi, WAVES))


def _rotation(view: View) -> np.ndarray:
    """Matrix from the image to the lesion's frame, pixels to pixels."""
    cosine, sine = np.cos(view.angle) / view.zoom, np.sin(view.angle) / view.zoom
    return np.array([[cosine, sine], [-sine, cosine]])


def _field(waves: Waves, view: View) -> np.ndarray:
    """Sum the waves as the view sees them; a plane wave is a product of a row and a column."""
    vectors = 2 * np.pi * waves.vectors @ _rotation(view)
    phases = waves.phases - vectors @ view.shift
    across = vectors[:, :1] * _AXIS + phases[:, None]
    down = vectors[:, 1:] * _AXIS
    # cos(a + b) as one real product of matrices: half the work of a complex one.
    rows = np.concatenate([np.cos(down), -np.sin(down)])
    columns = np.sqrt(2 / WAVES) * np.stack([np.cos(across), np.sin(across)])
    return rows.T @ columns.reshape(len(rows), SIDE)


def _depth(lesion: Lesion, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Return the depth below the border, as a share of the radius there and in pixels."""
    matrix = _rotation(view)
    x, y = _AXIS[None, :] - view.shift[0], _AXIS[:, None] - view.shift[1]
    u = (matrix[0, 0] * x + matrix[0, 1] * y) * np.exp(-lesion.stretch)
    v = (matrix[1, 0] * x + matrix[1, 1] * y) * np.exp(lesion.stretch)
    turn = (u + 1j * v) / np.maximum(np.hypot(u, v), 1e-9)
    border = np.zeros_like(u)
    power = turn
    for coefficient in lesion.contour:
        power = power * turn
        border += (coefficient * power).real
    border = lesion.radius * np.exp(np.clip(border, -0.5, 0.4))
    share = 1 - np.hypot(u, v) / border
    return share, share * border


def _photograph(image: np.ndarray, view: View) -> np.ndarray:
    """Add light, hair and the device's spectrum and noise; round to 8 bit."""
    slope = 1 + (view.slope[0] * _AXIS[None, :] + view.slope[1] * _AXIS[:, None]) / (SIDE / 2)
    shade = slope * (1 - view.vignette * np.clip(_RADIUS - 0.55, 0, None) ** 1.5)
    image = image * view.light * shade[..., None]
    for direction, offset, bend, darkness in view.hairs:
        along = _AXIS[None, :] * np.cos(direction) + _AXIS[:, None] * np.sin(direction)
        across = _AXIS[:, None] * np.cos(direction) - _AXIS[None, :] * np.sin(direction)
        hair = darkness * np.exp(-((across - offset - bend * along**2) ** 2) / 0.6)
        image = image * (1 - hair[..., None])
    if view.sharpness < 0:
        transfer = np.exp(-2 * np.pi**2 * view.sharpness**2 * _FREQUENCY_SQUARED)
    else:
        transfer = 1 + view.sharpness * (1 - np.exp(-2 * np.pi**2 * _FREQUENCY_SQUARED))
    spectrum = np.fft.rfft2(image, axes=(0, 1)) * transfer[..., None]
    image = np.fft.irfft2(spectrum, s=(SIDE, SIDE), axes=(0, 1)) + view.noise
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


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
    three lesions. A smaller set is part of every larger one with the same seed.

    Args:
        images: How many, at least 24.
        seed: Another seed gives other lesions.

    Returns:
        The table of a `Dataset`; a group is a lesion, seen in one to three images.
    """
    steps = np.arange(len(CLASSES)) / (len(CLASSES) - 1)
    shares = np.round(1e9 * TAIL_RATIO**-steps).astype(np.int64)
    rows = []
    for label, count in enumerate(share_out(shares, total=images, least=3)):
        views = ((lesion, view) for lesion in itertools.count() for view in range(_views(lesion)))
        for lesion, view in itertools.islice(views, count):
            group = f"{CLASS_NAMES[label]}-{lesion:05d}"
            source = SOURCES[_lesion_source(seed, label, lesion)]
            rows.append((f"{group}-{view}", label, group, "", source, ""))
    return pd.DataFrame(rows, columns=["image", "label", "group", "path", "source", "split"])


def draw_phantom(image: str, *, seed: int) -> np.ndarray:
    """Draw one image, ``uint8 (64, 64, 3)``, from its name in `phantom_table` and the seed."""
    name, lesion_text, view_text = image.split("-")
    label, lesion, view = CLASS_NAMES.index(name), int(lesion_text), int(view_text)
    shape = sample_lesion(CLASSES[label], np.random.default_rng([seed, label, lesion, 0]))
    sharp = _lesion_source(seed, label, lesion) == 1
    look = sample_view(np.random.default_rng([seed, label, lesion, 2 + view]), sharp=sharp)
    return render_view(shape, look)


@dataclass(frozen=True)
class PhantomReader:
    """Draw row by row; a row depends on its name and the seed, not on the other rows."""

    seed: int
    images: tuple[str, ...]
    interpolation: Interpolation = "bilinear"

    def __call__(self, row: int, size: int) -> np.ndarray:
        """Return the pixels of one row, ``uint8 (size, size, 3)``."""
        return resize_square(self.native(row), size=size, interpolation=self.interpolation)

    def native(self, row: int) -> np.ndarray:
        """Return one image as it is drawn, ``uint8 (64, 64, 3)``."""
        return draw_phantom(self.images[row], seed=self.seed)

    def take(self, rows: np.ndarray) -> "PhantomReader":
        """Return a reader of these rows alone."""
        return replace(self, images=tuple(self.images[row] for row in rows))

    def with_interpolation(self, interpolation: Interpolation) -> "PhantomReader":
        """Return a reader that resizes with this filter."""
        return replace(self, interpolation=interpolation)


def _views(lesion: int) -> int:
    """Images of a lesion; the first three have one, so that small classes have three groups."""
    return 1 if lesion < 3 else 1 + lesion % 3


def _lesion_source(seed: int, label: int, lesion: int) -> int:
    """Draw a lesion's source: the tail is seen more often by the sharp one, as in real archives."""
    rng = np.random.default_rng([seed, label, lesion, 1])
    return int(rng.random() < 0.35 + 0.3 * label / (len(CLASSES) - 1))
