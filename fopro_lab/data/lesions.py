"""How a phantom lesion looks: its own nature, one view of it, and the pixels of that view."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

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
    """What the lesions of a class have in common.

    Attributes:
        name: Shown to the user.
        band: Ring of the texture, cycles per pixel.
        colour: Mean RGB, 0..1.
        radius: Mean radius, pixels.
        stretch: Log of the ellipse's axis ratio.
        ragged: Relative spread of the border.
        lobes: Relative height of three to five lobes.
        softness: Width of the border, pixels.
        blotches: Strength of darker patches inside.

    Example:
        >>> LesionClass("disc", (0.1, 0.2), (0.5, 0.3, 0.2), radius=18.0).ragged
        0.07
    """

    name: str
    band: tuple[float, float]
    colour: tuple[float, float, float]
    radius: float
    stretch: float = 0.08
    ragged: float = 0.07
    lobes: float = 0.0
    softness: float = 1.2
    blotches: float = 0.15


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
    """One picture of a lesion: where it lies, the light, and the device."""

    angle: float
    zoom: float
    shift: np.ndarray
    light: np.ndarray  # gain of each channel
    slope: np.ndarray  # relative change of the light across the picture, x and y
    vignette: float
    hairs: np.ndarray  # (N, 4): direction, offset, bend, darkness
    sharpness: float  # below 0 blurs, above 0 sharpens
    noise: np.ndarray


def sample_lesion(kind: LesionClass, rng: np.random.Generator) -> Lesion:
    """Draw one lesion of a class.

    Args:
        kind: The class.
        rng: Random numbers of this lesion alone.

    Returns:
        Everything that all pictures of the lesion share.

    Example:
        >>> kind = LesionClass("disc", (0.1, 0.2), (0.5, 0.3, 0.2), radius=18.0)
        >>> len(sample_lesion(kind, np.random.default_rng(0)).contour)
        8
    """
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
    """Draw one view: place, light and device.

    Args:
        rng: Random numbers of this picture alone.
        sharp: The sharpening device with vignette and more hair, else the soft, noisy one.

    Returns:
        The view.

    Example:
        >>> sample_view(np.random.default_rng(0), sharp=True).sharpness > 0
        True
    """
    count = rng.poisson(1.1 if sharp else 0.25)
    hairs = np.stack(
        [
            rng.uniform(0, np.pi, count),
            rng.uniform(-26, 26, count),
            rng.uniform(-0.012, 0.012, count),
            rng.uniform(0.3, 0.65, count),
        ],
        axis=1,
    )
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
    """Compute the pixels of one view.

    Args:
        lesion: What is seen.
        view: How it is seen.

    Returns:
        ``uint8 (64, 64, 3)``, RGB.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> kind = LesionClass("disc", (0.1, 0.2), (0.5, 0.3, 0.2), radius=18.0)
        >>> render_view(sample_lesion(kind, rng), sample_view(rng, sharp=False)).dtype
        dtype('uint8')
    """
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
    picture = skin + (body - skin) * inside[..., None]
    return _photograph(picture, view)


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
    """Matrix from the picture to the lesion's frame, pixels to pixels."""
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


def _photograph(picture: np.ndarray, view: View) -> np.ndarray:
    """Add light, hair and the device's spectrum and noise; round to 8 bit."""
    slope = 1 + (view.slope[0] * _AXIS[None, :] + view.slope[1] * _AXIS[:, None]) / (SIDE / 2)
    shade = slope * (1 - view.vignette * np.clip(_RADIUS - 0.55, 0, None) ** 1.5)
    picture = picture * view.light * shade[..., None]
    for direction, offset, bend, darkness in view.hairs:
        along = _AXIS[None, :] * np.cos(direction) + _AXIS[:, None] * np.sin(direction)
        across = _AXIS[:, None] * np.cos(direction) - _AXIS[None, :] * np.sin(direction)
        hair = darkness * np.exp(-((across - offset - bend * along**2) ** 2) / 0.6)
        picture = picture * (1 - hair[..., None])
    if view.sharpness < 0:
        transfer = np.exp(-2 * np.pi**2 * view.sharpness**2 * _FREQUENCY_SQUARED)
    else:
        transfer = 1 + view.sharpness * (1 - np.exp(-2 * np.pi**2 * _FREQUENCY_SQUARED))
    spectrum = np.fft.rfft2(picture, axes=(0, 1)) * transfer[..., None]
    picture = np.fft.irfft2(spectrum, s=(SIDE, SIDE), axes=(0, 1)) + view.noise
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
