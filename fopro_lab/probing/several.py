"""Several teachers, asked the same about the same pictures."""

from collections.abc import Mapping, Sequence

import numpy as np

from fopro_lab.data import Pack, batches
from fopro_lab.fourier import ring_edges
from fopro_lab.models import load_teacher
from fopro_lab.probing.pictures import draw_rows, resampling_units
from fopro_lab.probing.rings import RingDrifts, ring_drifts


def ask_teachers(
    teachers: Mapping[str, str],
    pack: Pack,
    rows: np.ndarray,
    *,
    rings: int = 8,
    gains: Sequence[float] = (0.0, 2.0),
    count: int = 256,
    seed: int = 0,
) -> tuple[dict[str, RingDrifts], np.ndarray]:
    """Measure the ring response of every teacher, each at the size of the pack's pictures.

    A teacher that is given smaller pictures would be deaf to the high rings by the resizing alone,
    so a difference between teachers would be one between sizes.

    Args:
        teachers: Name, as `load_teacher` takes it, and file of weights, empty for the built-in one.
        pack: The pictures.
        rows: Which of them to draw from.
        rings: Rings up to 0.5 cycles per pixel; the corners are one more.
        gains: Factors of the amplitudes.
        count: Pictures, at most.
        seed: Seed of the draw.

    Returns:
        The drifts by teacher, and lesion, patient or picture of each picture asked about.

    Raises:
        InputError: If a teacher, its weights, a gain or the number of rings does not fit.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", pictures=40), 16, progress=False)
        >>> drifts, units = ask_teachers({"builtin": ""}, packed, np.arange(40), rings=2, count=6)
        >>> drifts["builtin"].drift.shape, len(units)
        ((1, 3, 2, 6), 6)
    """
    drawn = draw_rows(rows, count=count, seed=seed)
    images, _ = next(batches(pack, drawn, batch_size=len(drawn)))
    asked = {
        name: ring_drifts(load_teacher(name, weights=weights), images, ring_edges(rings), gains)
        for name, weights in teachers.items()
    }
    return asked, resampling_units(pack.dataset.table, rows=drawn)
