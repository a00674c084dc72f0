"""Mean spectra of classes and sources."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.data import Pack, batches
from fopro_lab.fourier import ring_energy

FLOOR = (1e-3 / 255) ** 2  # a thousandth of a grey level, so that a flat image has a logarithm


def mean_spectra(pack: Pack, rows: np.ndarray, *, edges: Sequence[float]) -> pd.DataFrame:
    """Average the logarithm of each ring's amplitude over the images of a class or source.

    A ring's amplitude is its contrast: the root of its energy, averaged over the channels. The
    difference is taken from the mean over classes (or sources), each counting the same: a sum
    over images would let the size of a class leak in. ``edges`` are ``R + 1`` increasing
    frequencies, cycles per pixel, as in ``ring_masks``.

    Returns:
        A row for each class or source that occurs and each ring: ``scope`` ("class", "source"),
        ``name``, ``ring``, ``low``, ``high`` (cycles per pixel), ``log_amplitude`` (mean natural
        logarithm, amplitude in units of [0, 1]), ``difference`` (from the mean within the scope),
        ``spread`` (standard deviation over the images), ``n``. Unknown sources have no row.
    """
    log_amplitude = _logarithms(_ring_energies(pack, rows, edges).mean(dim=1)) / 2
    chosen = pack.dataset.table.iloc[rows]
    class_names = np.array(pack.dataset.class_names, dtype=object)[chosen["label"]]
    lines = []
    for scope, members in (("class", class_names), ("source", chosen["source"].to_numpy())):
        names = [name for name in dict.fromkeys(members) if name != ""]
        parts = [log_amplitude[members == name] for name in names]
        means = [part.mean(axis=0) for part in parts]
        overall = np.mean(means, axis=0) if means else 0
        for name, part, mean in zip(names, parts, means, strict=True):
            for ring, (low, high) in enumerate(pairwise(map(float, edges))):
                numbers = (mean[ring], (mean - overall)[ring], part[:, ring].std(), len(part))
                lines.append((scope, name, ring, low, high, *numbers))
    columns = ["scope", "name", "ring", "low", "high", "log_amplitude", "difference", "spread", "n"]
    return pd.DataFrame(lines, columns=columns)


def _ring_energies(pack: Pack, rows: np.ndarray, edges: Sequence[float]) -> Tensor:
    """Return the energy ``(n, 3, R)`` of each image's rings."""
    with torch.inference_mode():
        return torch.cat([ring_energy(x, edges) for x, _ in batches(pack, rows, batch_size=256)])


def _logarithms(energy: Tensor) -> np.ndarray:
    return np.log(np.maximum(energy.numpy().astype(np.float64), FLOOR))
