"""Which pictures are asked, and what a bootstrap draws as a whole."""

import numpy as np
import pandas as pd

from fopro_lab.errors import InputError


def resampling_units(table: pd.DataFrame, *, rows: np.ndarray) -> np.ndarray:
    """Name what a bootstrap draws as a whole: the group, or the picture where it has none.

    Args:
        table: A data set's table, with the columns ``image`` and ``group``.
        rows: Which of its rows.

    Returns:
        Names ``(n,)``.

    Example:
        >>> table = pd.DataFrame({"image": ["a", "b"], "group": ["lesion 1", ""]})
        >>> resampling_units(table, rows=np.arange(2)).tolist()
        ['lesion 1', 'image b']
    """
    chosen = table.iloc[rows]
    named = chosen["group"].where(chosen["group"] != "", "image " + chosen["image"])
    return named.to_numpy(dtype=str)


def draw_rows(rows: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """Draw at most ``count`` of some rows, in their order.

    Raises:
        InputError: If ``count`` is below 1.

    Example:
        >>> draw_rows(np.arange(9), count=3, seed=0).tolist()
        [4, 5, 7]
    """
    if count < 1:
        raise InputError(f"pictures: expected 1 or more, got {count}")
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(rows, min(count, len(rows)), replace=False))


def draw_per_class(
    rows: np.ndarray, labels: np.ndarray, *, per_class: int, seed: int
) -> np.ndarray:
    """Draw at most ``per_class`` rows of each class: rare classes stay whole.

    Args:
        rows: Rows of a pack, ``(n,)``.
        labels: Class of each, ``(n,)``.
        per_class: At most this many; 0 takes all.
        seed: Seed of the draw.

    Returns:
        The drawn rows, in their order.

    Raises:
        InputError: If ``per_class`` is negative.

    Example:
        >>> draw_per_class(np.arange(6), np.array([0, 0, 0, 0, 1, 1]), per_class=2, seed=0).tolist()
        [2, 3, 4, 5]
    """
    if per_class < 0:
        raise InputError(f"per_class: expected 0 or more, got {per_class}")
    if per_class == 0:
        return rows
    rng = np.random.default_rng(seed)
    drawn = []
    for label in np.unique(labels):
        own = rows[labels == label]
        drawn.append(rng.choice(own, min(per_class, len(own)), replace=False))
    return np.sort(np.concatenate(drawn))
