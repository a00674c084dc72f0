"""Each picture's answer to each ring as a table, and back."""

import numpy as np
import pandas as pd

from fopro_lab.errors import InputError
from fopro_lab.probing.rings import RingDrifts


def drift_table(drifts: RingDrifts, names: np.ndarray, units: np.ndarray) -> pd.DataFrame:
    """Lay drifts out, a row a channel, ring, gain and picture.

    Args:
        drifts: Of `ring_drifts`.
        names: Of the pictures, ``(N,)``.
        units: Lesion or patient of each, ``(N,)``.

    Returns:
        ``channel``, ``ring``, ``gain``, ``image``, ``unit``, ``drift``, ``energy``.

    Example:
        >>> part = np.zeros((1, 2, 1, 2))
        >>> found = RingDrifts((0, 0.2, 0.4), (0.0,), ("all",), part, part, 0.0)
        >>> drift_table(found, np.array(["a", "b"]), np.array(["x", "x"]))["ring"].tolist()
        [0, 0, 1, 1]
    """
    rings = range(len(drifts.edges) - 1)
    index = pd.MultiIndex.from_product(
        [drifts.channels, rings, drifts.gains, range(len(names))],
        names=["channel", "ring", "gain", "place"],
    )
    table = index.to_frame(index=False)
    place = table.pop("place").to_numpy()
    return table.assign(
        image=names[place],
        unit=units[place],
        drift=drifts.drift.ravel(),
        energy=drifts.energy.ravel(),
    )


def drifts_from_table(
    table: pd.DataFrame, edges: tuple[float, ...], *, rounding: float = 0.0
) -> tuple[RingDrifts, np.ndarray, np.ndarray]:
    """Turn a table of `drift_table` back.

    Args:
        table: In its order.
        edges: ``R + 1`` frequencies, cycles per pixel.
        rounding: As in `RingDrifts`.

    Returns:
        The drifts, the pictures' names and their units.

    Raises:
        InputError: If rows are missing.

    Example:
        >>> part = np.arange(4.0).reshape(1, 2, 1, 2)
        >>> found = RingDrifts((0, 0.2, 0.4), (0.0,), ("all",), part, part, 0.0)
        >>> names = np.array(["a", "b"])
        >>> again, same, _ = drifts_from_table(drift_table(found, names, names), found.edges)
        >>> (again.drift == part).all(), same.tolist()
        (np.True_, ['a', 'b'])
    """
    channels, gains = (tuple(table[key].unique()) for key in ("channel", "gain"))
    blocks = len(channels) * (len(edges) - 1) * len(gains)
    if blocks == 0 or len(table) % blocks or len(table) == 0:
        raise InputError(f"drifts: expected whole blocks of {blocks} rows, got {len(table)}")
    count = len(table) // blocks
    shape = (len(channels), len(edges) - 1, len(gains), count)
    drift, energy = (table[key].to_numpy().reshape(shape) for key in ("drift", "energy"))
    first = table.iloc[:count]
    found = RingDrifts(tuple(edges), gains, channels, drift, energy, rounding)
    return found, first["image"].to_numpy(dtype=str), first["unit"].to_numpy(dtype=str)
