"""Degraded images, and what gains before a frozen teacher restore of its classes.

The control's answer is known. A scanner with poor optics: the amplitude of every frequency times
``max(exp(-(f / f0)^2), floor)``, and noise; the inverse filter within a bound is the gain that a
prompt should find. What a gain is worth is measured by a linear probe behind it, on other lesions.
"""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.data import Pack, batches
from fopro_lab.errors import InputError
from fopro_lab.evaluation.bootstrap import percentile_interval, sample_and_resamples
from fopro_lab.evaluation.metrics import balanced_accuracies, discriminant
from fopro_lab.fourier import FourierPrompt, apply_gain, radial_frequency
from fopro_lab.fourier.gain import MOST, match_strength
from fopro_lab.fourier.prompt import draw as draw_normal
from fopro_lab.io import progress
from fopro_lab.probing.features import Encoder, encode, feature_drift, resampling_units

KINDS = ("clean", "low-pass", "sharpening", "contrast", "noise")
SEVERITIES = {  # from mild to severe
    "low-pass": (0.2, 0.1, 0.05),
    "sharpening": (1.0, 3.0),
    "contrast": (0.5, 0.25),
    "noise": (0.03, 0.1),
}
CUTOFF = 0.05  # f0, cycles per pixel
SHARPENED = 0.1  # cycles per pixel, above which sharpening acts
FLOOR, NOISE = 0.03, 0.002  # least factor of an amplitude, standard deviation in units of [0, 1]
MAX_LOG_GAIN = 1.5  # of the inverse filter
SHRINKAGE = 3.0  # of the covariance: what cross-validation on training images prefers
LARGEST = 2.0  # of a random gain's logarithm, standard deviation
BATCH = 64
Gains: TypeAlias = Mapping[str, Tensor | list[Tensor] | None]
COLUMNS = ["split", "input", "gain", "drift", "balanced_accuracy", "low", "high"]


def low_pass(size: int, *, cutoff: float = CUTOFF) -> Tensor:
    """Return the gain ``(size, size // 2 + 1)`` of the poor optics; ``cutoff`` in cycles/pixel."""
    return torch.exp(-((radial_frequency(size, size) / cutoff) ** 2)).clamp(min=FLOOR)


def inverse_gain(
    size: int, *, cutoff: float = CUTOFF, max_log_gain: float = MAX_LOG_GAIN
) -> Tensor:
    """Return the inverse of `low_pass`, at most ``exp(max_log_gain)``."""
    return (1 / low_pass(size, cutoff=cutoff)).clamp(max=float(np.exp(max_log_gain)))


@dataclass(frozen=True)
class Degradation:
    """What happens to images before a gain: a kind and how severe it is.

    - ``clean``: nothing.
    - ``low-pass``: `low_pass`; the severity is its cutoff, cycles per pixel: the lower, the worse.
    - ``sharpening``: amplitudes times ``1 + severity`` at high frequencies, as an unsharp mask.
    - ``contrast``: all amplitudes but the mean colour's times the severity.
    - ``noise``: the severity is the standard deviation, in units of [0, 1].
    """

    kind: str = "low-pass"
    severity: float = CUTOFF

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"degradation: expected one of {', '.join(KINDS)}, got '{self.kind}'")
        if self.kind != "clean" and not 0 < self.severity < 100:
            raise InputError(f"{self.kind}: expected a severity above 0, got {self.severity}")

    def __call__(self, images: Tensor) -> Tensor:
        """Degrade images ``(B, C, H, H)`` in [0, 1]; only a low-pass, to be inverted, may leave it.

        Noise, in all but clean images at least that of the scanner, depends on each image alone.
        """
        if self.kind == "clean":
            return images
        behind, size = images.clone(), images.shape[-1]
        if (gain := self.gain(size)) is not None:
            behind = apply_gain(images, gain.to(images))
        noise = self.severity if self.kind == "noise" else NOISE
        for image, changed in zip(images, behind, strict=True):
            pixels = (255 * image).round().clamp(0, 255).byte().cpu().numpy()
            own = torch.Generator().manual_seed(zlib.crc32(pixels.tobytes()))
            changed += noise * torch.randn(changed.shape, generator=own).to(changed)
        return behind if self.kind == "low-pass" else behind.clamp(0, 1)

    def gain(self, size: int) -> Tensor | None:
        """Return what it does to amplitudes, ``(size, size // 2 + 1)``; None if nothing."""
        if self.kind == "low-pass":
            return low_pass(size, cutoff=self.severity)
        radius = radial_frequency(size, size)
        if self.kind == "sharpening":
            return 1 + self.severity * (1 - torch.exp(-((radius / SHARPENED) ** 2)))
        if self.kind == "contrast":
            return torch.where(radius == 0, 1.0, self.severity)
        return None


def with_drift(teacher: Encoder, images: Tensor, gain: Tensor, *, drift: float) -> Tensor:
    """Multiply a gain's logarithm until the features of images drift by a mean ``1 - cos``.

    ``images`` are ``(B, 3, H, W)`` in [0, 1], ``gain`` is ``(H, W // 2 + 1)`` or with channels. If
    even five times the logarithm drifts less, that is an `InputError`.
    """
    with torch.inference_mode():
        plain = encode(teacher, images)

        def drift_of(strength: float) -> float:
            changed = encode(teacher, apply_gain(images, gain**strength))
            return float(feature_drift(plain, changed).mean())

        strength = match_strength(drift_of, drift)
    if strength == MOST:
        raise InputError(f"drift: expected what the gain can reach, got {drift:.3g}")
    return gain**strength


def random_gains(
    teacher: Encoder, prompt: FourierPrompt, images: Tensor, *, drift: float, draws: int, seed: int
) -> list[Tensor]:
    """Draw gains of a prompt's form at random until ``draws`` of them can be matched in drift.

    The mean of their logarithm is 0: a shape is judged, not contrast. Where most of a prompt's
    gains stand at its bound, moved to other frequencies they would be contrast alone.

    Raises:
        InputError: If seven draws of eight cannot reach this drift.
    """
    size, source = (images.shape[2], images.shape[3]), torch.Generator().manual_seed(seed)
    some, found = images[:: len(images) // 128 + 1], list[Tensor]()
    for _ in range(8 * draws):
        cells = draw_normal(1, *prompt.shape, generator=source)
        log_gain = prompt.spread(cells, size=size)[0].log()
        log_gain = (log_gain - log_gain.mean()).detach()
        log_gain *= LARGEST / MOST / log_gain.std()
        log_gain[..., 0, 0] = 0  # the mean colour stays
        with suppress(InputError):
            found.append(with_drift(teacher, some, log_gain.exp(), drift=drift))
        if len(found) == draws:
            return found
    raise InputError(f"drift: expected what random gains can reach, got {drift:.3g}")


def control_table(
    teacher: Encoder,
    pack: Pack,
    gains: Gains,
    *,
    train: np.ndarray,
    test: np.ndarray,
    split: str,
    degradation: Degradation,
    resamples: int = 1000,
) -> pd.DataFrame:
    """Judge gains before a frozen teacher by linear probes on held-out lesions.

    A shrunken discriminant in closed form, all classes alike, is fitted on the training images
    behind each gain and tested on the test images, rows of other lesions, behind the same gain.
    ``gains`` are, by name, broadcastable to ``(B, 3, H, W // 2 + 1)``, for degraded images; or
    None. Of a list of random draws the mean is judged: one draw says little. ``split`` is a name
    for the table; ``resamples`` are of whole lesions.

    Returns:
        A row for the clean images and each gain: ``split``, ``input`` (clean, degraded), ``gain``,
        ``drift`` (mean ``1 - cos`` of the test images' features without and with the gain),
        ``balanced_accuracy`` with ``low`` and ``high`` (95 %).
    """
    lines = []
    found = _judge(teacher, pack, gains, train, test, degradation, resamples)
    for names, (moved, value, *resampled) in found.items():
        lines.append((split, *names, moved, value, *percentile_interval(np.array(resampled))))
    return pd.DataFrame(lines, columns=COLUMNS)


def gain_benefits(
    teacher: Encoder,
    pack: Pack,
    gains: Gains,
    *,
    train: np.ndarray,
    test: np.ndarray,
    degradation: Degradation,
    resamples: int = 1000,
) -> pd.DataFrame:
    """Subtract the balanced accuracy without a gain, paired by test image; see `control_table`.

    A row for each gain but "none": ``kind``, ``severity``, ``gain``, ``drift``, ``without``
    (balanced accuracy of no gain), ``difference`` with ``low`` and ``high`` (95 %, over lesions).
    """
    found = _judge(teacher, pack, gains, train, test, degradation, resamples)
    plain, lines = found["degraded", "none"], []
    for (given, name), own in found.items():
        if given == "degraded" and name != "none":
            difference, *resampled = (own - plain)[1:]
            limits = percentile_interval(np.array(resampled))
            lines.append((name, own[0], plain[1], difference, *limits))
    columns = ["gain", "drift", "without", "difference", "low", "high"]
    table = pd.DataFrame(lines, columns=columns).assign(**asdict(degradation))
    return table[["kind", "severity", *columns]]


def _judge(
    teacher: Encoder,
    pack: Pack,
    gains: Gains,
    train: np.ndarray,
    test: np.ndarray,
    degradation: Degradation,
    resamples: int,
) -> dict[tuple[str, str], np.ndarray]:
    """Measure (input, gain): drift, balanced accuracy and its resamples, the same for all."""
    seen, known = (_features(teacher, pack, rows, gains, degradation) for rows in (train, test))
    labels, classes = pack.labels[test], len(pack.dataset.class_names)
    units = resampling_units(pack.dataset.table, rows=test)
    weights = sample_and_resamples(labels, units, resamples=resamples, seed=0)
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for (given, name, draw), features in known.items():
        own = seen[given, name, draw], pack.labels[train]
        weight, bias = discriminant(*own, classes=classes, shrinkage=SHRINKAGE)
        predicted = (features @ weight + bias).argmax(axis=1)
        values = balanced_accuracies(labels, predicted, weights, classes=classes)
        pair = (known.get((given, "none", 0), features), features)
        moved = float(feature_drift(*map(torch.from_numpy, pair)).mean())
        found.setdefault((given, name), []).append(np.append(moved, values))
    return {names: np.mean(draws, axis=0) for names, draws in found.items()}


def recovered(table: pd.DataFrame) -> pd.DataFrame:
    """Compute how much of what the inverse filter recovers each gain of `control_table` does.

    A row has ``split``, ``gain``, ``points`` (of balanced accuracy over no gain) and ``share`` (of
    the inverse filter's points).
    """
    degraded = table[table["input"] == "degraded"]
    wide = 100 * degraded.pivot(index="split", columns="gain", values="balanced_accuracy")
    points = wide.sub(wide["none"], axis=0)
    shares = points.div(points["inverse"], axis=0).stack().rename("share")
    both = points.stack().rename("points").to_frame().join(shares).reset_index()
    return both[both["gain"] != "none"].reset_index(drop=True)


def _features(
    teacher: Encoder, pack: Pack, rows: np.ndarray, gains: Gains, degradation: Degradation
) -> dict[tuple[str, str, int], np.ndarray]:
    """Encode rows, clean and degraded, behind every gain: (input, gain, draw) to ``(n, D)``."""
    every = {("degraded", name, draw): gain for name, draw, gain in _draws(gains)}
    parts = {key: list[Tensor]() for key in (("clean", "none", 0), *every)}
    work = batches(pack, rows, batch_size=BATCH)
    with torch.inference_mode():
        for images, _ in progress(work, total=-(-len(rows) // BATCH), label="control"):
            parts["clean", "none", 0].append(encode(teacher, images))
            behind = degradation(images)
            for key, gain in every.items():
                changed = behind if gain is None else apply_gain(behind, gain)
                parts[key].append(encode(teacher, changed))
    return {name: torch.cat(values).cpu().double().numpy() for name, values in parts.items()}


def gain_profiles(gains: Gains) -> pd.DataFrame:
    """Read each gain along the horizontal frequencies.

    A row has ``gain``, ``draw`` (from 0), ``frequency`` (cycles per pixel) and ``factor``
    (geometric mean of channels).
    """
    lines = []
    for name, draw, gain in _draws(gains):
        if gain is not None:
            row = gain.log().reshape(-1, *gain.shape[-2:]).mean(dim=0)[0].exp().tolist()
            lines += [(name, draw, k / (2 * len(row) - 2), row[k]) for k in range(1, len(row))]
    return pd.DataFrame(lines, columns=["gain", "draw", "frequency", "factor"])


def _draws(gains: Gains) -> Iterator[tuple[str, int, Tensor | None]]:
    for name, own in gains.items():
        for draw, gain in enumerate(own if isinstance(own, list) else [own]):
            yield name, draw, gain
