"""Mean spectra: how strong each frequency ring is in the pictures of a class or a source."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from fopro_lab.data import Pack, batches
from fopro_lab.fourier import ring_energy

FLOOR = (1e-3 / 255) ** 2  # a thousandth of a grey level, so that a flat picture has a logarithm


def mean_spectra(
    pack: Pack, rows: np.ndarray, *, edges: Sequence[float], batch_size: int = 256
) -> pd.DataFrame:
    """Average the logarithm of each ring's amplitude over the pictures of a class or source.

    A ring's amplitude is its contrast: the root of its energy, averaged over the channels. The
    difference is taken from the mean over classes (or sources), each counting the same: a sum
    over pictures would let the size of a class leak in.

    Args:
        pack: The pictures, with their data set.
        rows: Which, at least one.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        batch_size: Pictures a transform.

    Returns:
        A row for each class or source that occurs and each ring: ``scope`` ("class", "source"),
        ``name``, ``ring``, ``low``, ``high`` (cycles per pixel), ``log_amplitude`` (mean natural
        logarithm, amplitude in units of [0, 1]), ``difference`` (from the mean within the scope),
        ``spread`` (standard deviation over the pictures), ``n``. Unknown sources have no row.

    Raises:
        InputError: If the edges are wrong or a row is not in the pack.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", pictures=24), 16, progress=False)
        >>> table = mean_spectra(packed, np.arange(24), edges=[0, 0.25, 0.75])
        >>> table["scope"].value_counts().to_dict()
        {'class': 16, 'source': 4}
    """
    with torch.inference_mode():
        energy = [
            ring_energy(images, edges).mean(dim=1).numpy()
            for images, _ in batches(pack, rows, batch_size=batch_size)
        ]
    log_amplitude = np.log(np.maximum(np.concatenate(energy).astype(np.float64), FLOOR)) / 2
    chosen = pack.dataset.table.iloc[rows]
    class_names = np.array(pack.dataset.class_names, dtype=object)[chosen["label"]]
    scopes = {"class": class_names, "source": chosen["source"].to_numpy()}
    tables = [
        _describe(log_amplitude, members, edges).assign(scope=scope)
        for scope, members in scopes.items()
        if (members != "").any()
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[["scope", *(column for column in table if column != "scope")]]


def _describe(
    log_amplitude: np.ndarray, members: np.ndarray, edges: Sequence[float]
) -> pd.DataFrame:
    """Average ``(n, R)`` over the pictures of each member, in the order of their first picture."""
    names = [name for name in dict.fromkeys(members) if name != ""]
    parts = [log_amplitude[members == name] for name in names]
    means = np.stack([part.mean(axis=0) for part in parts])
    differences = means - means.mean(axis=0)
    rows = [
        {
            "name": name,
            "ring": ring,
            "low": float(edges[ring]),
            "high": float(edges[ring + 1]),
            "log_amplitude": means[place, ring],
            "difference": differences[place, ring],
            "spread": parts[place][:, ring].std(),
            "n": len(parts[place]),
        }
        for place, name in enumerate(names)
        for ring in range(len(edges) - 1)
    ]
    return pd.DataFrame(rows)
