"""The Fourier basis as single waves: which there are, and how they are pooled into cells.

A real wave and its mirror image at the opposite frequency are one, so half of the plane is enough;
the other half is drawn from it. Frequencies are whole numbers of cycles per picture: ``row`` from
``-(H // 2)`` on, downwards, and ``column`` from 0 to ``W // 2``, to the right.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd

from fopro_lab.errors import InputError

By = Literal["rings", "blocks", "full"]


def basis_wave(row: int, column: int, *, height: int, width: int) -> np.ndarray:
    """Return the cosine wave of one frequency, with a Euclidean norm of 1.

    Args:
        row: Cycles per picture, vertically.
        column: Cycles per picture, horizontally.
        height: Pixels.
        width: Pixels.

    Returns:
        ``(height, width)``, float64.

    Source: Yin et al., NeurIPS 2019, arXiv:1906.08988, section 2.

    Example:
        >>> basis_wave(0, 2, height=1, width=4).tolist()
        [[0.5, -0.5, 0.5, -0.5]]
    """
    cycles = row * np.arange(height)[:, None] / height + column * np.arange(width) / width
    # Whole cycles are taken away first: the cosine of a large number loses digits.
    wave = np.cos(2 * np.pi * (cycles - np.round(cycles)))
    return wave / np.linalg.norm(wave)


def wave_size(height: int, width: int) -> float:
    """Return the customary size v of a wave, as a Euclidean norm in units of [0, 1].

    It grows with the square root of the number of pixels, so that the contrast of the wave stays.

    Example:
        >>> wave_size(32, 32), wave_size(224, 224)
        (4.0, 28.0)
    """
    return float(np.sqrt(height * width) / 8)


def basis_cells(
    height: int,
    width: int,
    *,
    by: By,
    edges: Sequence[float] = (),
    block: int = 7,
    waves: int = 0,
    seed: int = 0,
) -> pd.DataFrame:
    """List the waves to be measured and the cell that each belongs to.

    Args:
        height: Of the pictures, pixels.
        width: Of the pictures, pixels.
        by: ``"rings"`` takes some waves of each frequency ring, ``"blocks"`` some of each square
            block of frequencies, ``"full"`` takes every wave, each its own cell, DC among them.
        edges: For rings: ``R + 1`` increasing frequencies, cycles per pixel.
        block: For blocks: side, in bins, odd; a block is centred at multiples of it.
        waves: At most this many of a cell: of a ring drawn without replacement, of a block those
            nearest to its centre. 0 takes 8 of a ring and 1 of a block.
        seed: Seed of the draw.

    Returns:
        A row a wave: ``cell``, ``row``, ``column`` (cycles per picture), ``cell_row``,
        ``cell_column`` (centre of a block; 0 for rings).

    Raises:
        InputError: For another ``by``, an even block, or a number below 1.

    Example:
        >>> cells = basis_cells(8, 8, by="full")
        >>> len(cells), cells["cell"].nunique()  # 64 bins, four of them without a mirror image
        (34, 34)
    """
    if by not in ("rings", "blocks", "full"):
        raise InputError(f"by: expected one of 'rings', 'blocks', 'full', got '{by}'")
    if block < 1 or block % 2 == 0:
        raise InputError(f"block: expected an odd number of bins, 1 or more, got {block}")
    if waves < 0:
        raise InputError(f"waves: expected 0 or more, got {waves}")
    waves = waves or (8 if by == "rings" else 1)
    rows, columns = plane_bins(height, width)
    bins = np.unique(np.stack([rows.ravel(), columns.ravel()], axis=1), axis=0)
    table = pd.DataFrame(bins, columns=["row", "column"])
    if by == "rings":
        table["cell"] = cell_of_ring(table, edges, height=height, width=width)
        table = table[table["cell"] >= 0].assign(cell_row=0, cell_column=0)
    else:
        side = block if by == "blocks" else 1
        table = table.assign(
            **dict(zip(("cell_row", "cell_column"), block_centres(bins, side), strict=True))
        )
        if side > 1:  # DC shifts the brightness; a block's number is to speak of waves
            table = table[(table["row"] != 0) | (table["column"] != 0)]
        table["cell"] = table.groupby(["cell_row", "cell_column"]).ngroup()
    rng = np.random.default_rng(seed)
    shuffled = table.iloc[rng.permutation(len(table))]
    if by == "blocks":
        off = np.hypot(table["row"] - table["cell_row"], table["column"] - table["cell_column"])
        shuffled = table.iloc[np.argsort(off, kind="stable")]
    drawn = shuffled.groupby("cell").head(waves).sort_values(["cell", "row", "column"])
    order = ["cell", "row", "column", "cell_row", "cell_column"]
    return drawn[order].reset_index(drop=True)


def plane_bins(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Name the wave of every bin of the whole plane, zero frequency in the middle.

    Returns:
        Row and column, ``(height, width)`` each, in ``fftshift`` order; a bin and its mirror image
        have the same.

    Example:
        >>> rows, columns = plane_bins(1, 4)
        >>> columns.tolist()  # -2 / 4 is the same frequency as 2 / 4
        [[2, 1, 0, 1]]
    """
    row, column = np.meshgrid(
        np.arange(height) - height // 2, np.arange(width) - width // 2, indexing="ij"
    )
    if height % 2 == 0:
        mirror = np.where(row == -(height // 2), row, -row)
    else:
        mirror = -row
    own_column = (column == 0) | (2 * column == -width)  # columns that mirror onto themselves
    flip = (column < 0) & ~own_column | own_column & (mirror > row)
    return np.where(flip, mirror, row), np.abs(column)


def cell_of_ring(
    table: pd.DataFrame, edges: Sequence[float], *, height: int, width: int
) -> np.ndarray:
    """Number the ring ``(edges[k], edges[k + 1]]`` of each wave; -1 is none.

    Example:
        >>> cell_of_ring(pd.DataFrame({"row": [0, 0], "column": [0, 2]}), [0, 0.25, 0.75],
        ...              height=8, width=8).tolist()
        [-1, 0]
    """
    radius = np.hypot(table["row"] / height, table["column"] / width).to_numpy()
    ring = np.full(len(table), -1)
    for place, (low, high) in enumerate(pairwise(edges)):
        ring[(radius > low) & (radius <= high)] = place
    return ring


def block_centres(bins: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre of each wave's block; a block and its mirror image are one.

    Args:
        bins: Row and column of each wave, ``(n, 2)``, as `plane_bins` names them.
        side: Of a block, bins, odd.

    Example:
        >>> [part.tolist() for part in block_centres(np.array([[-4, 1], [4, 0], [1, 5]]), 3)]
        [[3, 3, 0], [0, 0, 6]]
    """
    centre = np.floor((bins + side // 2) / side).astype(np.int64) * side
    flip = (centre[:, 1] == 0) & (centre[:, 0] < 0)
    return np.where(flip, -centre[:, 0], centre[:, 0]), centre[:, 1]
