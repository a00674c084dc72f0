"""Fourier basis heat map: which single waves upset a teacher or a classifier.

Source: Yin et al., NeurIPS 2019, arXiv:1906.08988.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.evaluation.bootstrap import LEVEL, bootstrap_weights
from fopro_lab.fourier.rings import check_pixels
from fopro_lab.io import progress
from fopro_lab.probing import features
from fopro_lab.probing.features import Classifier, Encoder, LinearProbe


def basis_heat_map(
    network: Encoder | Classifier,
    images: Tensor,
    *,
    labels: np.ndarray | None = None,
    probe: LinearProbe | None = None,
    block: int = 7,
    units: np.ndarray | None = None,
    batch_size: int = 64,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Add single waves of one size to the images and measure what they do.

    A wave ``v U`` of Euclidean norm v, 4 at 32 px and growing with the side, is added to every
    channel, with both signs, before the normalisation; the sum is clipped to [0, 1], as published.

    Measured is the central wave of each square ``block`` of frequencies, of an odd side in bins; 1
    is every wave. A frozen teacher gives the drift of its features, and with a ``probe`` and
    ``labels``, ``(N,)``, the error rate; a `Classifier` the error rate alone.
    ``images`` are ``(N, 3, H, W)`` in [0, 1]; ``units`` their lesions or patients, drawn as a
    whole, or None for one each.

    Returns:
        A row per cell: ``cell``, ``row``, ``column`` (centre of a block, cycles per image),
        ``drift`` and ``error`` (means over images and signs; NaN where not measured), each with
        ``_low`` and ``_high`` (95 % interval), ``clean_error``, ``n``, ``block``, ``height``,
        ``width``, ``size`` (v, in units of [0, 1]).

    Raises:
        ShapeError: If labels or units do not fit the images.
        InputError: If a number is wrong, or a classifier comes without labels.
    """
    check_pixels(images, changed=True)  # prompted ones may leave [0, 1]
    count, height, width = len(images), *images.shape[-2:]
    for name, given in (("labels", labels), ("units", units)):
        if given is not None and len(given) != count:
            raise ShapeError(f"{name}: expected one for each of {count}, got {len(given)}")
    cells = basis_cells(height, width, block=block)
    size = float(np.sqrt(height * width) / 8)
    logits, places = None, zip(cells["row"], cells["column"], strict=True)
    truth = torch.zeros(count) if labels is None else torch.as_tensor(labels)
    if not isinstance(network, Classifier):
        device: torch.device | str = features.teacher_device(network)
        logits = features.probe_logits(network, probe) if probe and labels is not None else None
    elif labels is None:
        raise InputError("labels: expected one for each image, as a classifier gives classes")
    else:
        device = network.device

    def answer(images: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and errors; NaN is what is unknown."""
        if isinstance(network, Classifier):
            unknown = images.new_full((len(images), 1), torch.nan, dtype=torch.float64)
            return unknown, (network.predict(images) != true).double()
        found = features.encode(network, images).double()
        if logits is None:
            return found, torch.full_like(found[:, 0], torch.nan)
        return found, (logits(found).argmax(dim=1) != true).double()

    with torch.inference_mode():
        parts = []
        for rows in torch.arange(count).split(max(1, batch_size // 2)):
            pixels, true = images[rows].to(device), truth[rows].to(device)
            parts.append((pixels, true, *answer(pixels, true)))
        clean_error = torch.cat([error for *_, error in parts]).cpu().numpy().mean()
        values = []
        for row, column in progress(places, total=len(cells), label=f"heat map of {network.name}"):
            wave = size * basis_wave(row, column, height=height, width=width)
            shift = torch.from_numpy(wave).to(device, images.dtype)
            upset = []
            for pixels, true, before, _ in parts:
                both = torch.cat([pixels + shift, pixels - shift]).clamp(0, 1)
                after, error = answer(both, true.repeat(2))
                drift = features.feature_drift(before.repeat(2, 1), after)
                upset.append(torch.stack([drift, error]).view(2, 2, -1).mean(dim=1).float())
            values.append(torch.cat(upset, dim=1))
        measured = torch.stack(values).cpu().numpy()  # once: a copy waits for the device
    drawn = np.arange(count) if units is None else units
    weights = bootstrap_weights(None, drawn, resamples=resamples, seed=seed)
    table = cells[["cell", "cell_row", "cell_column"]].set_axis(["cell", "row", "column"], axis=1)
    for place, name in enumerate(("drift", "error")):
        own = measured[:, place].astype(np.float64)
        table[name], means = own.mean(axis=1), own @ (weights / weights.sum(axis=0))
        ends = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
        table[f"{name}_low"], table[f"{name}_high"] = ends
    about = {"n": count, "block": block, "height": height, "width": width, "size": size}
    return table.assign(clean_error=clean_error, **about)


def basis_wave(row: int, column: int, *, height: int, width: int) -> np.ndarray:
    """Return the cosine wave of one frequency, in cycles per image, with a Euclidean norm of 1."""
    cycles = row * np.arange(height)[:, None] / height + column * np.arange(width) / width
    # Whole cycles are taken away first: the cosine of a large number loses digits.
    wave = np.cos(2 * np.pi * (cycles - np.round(cycles)))
    return wave / np.linalg.norm(wave)


def basis_cells(height: int, width: int, *, block: int = 1) -> pd.DataFrame:
    """List the wave that is measured for each block ("cell") of an odd side; 1 is every wave.

    A block, centred at multiples of its side, has the wave nearest to its centre. ``row`` and
    ``column`` are of the wave, ``cell_row`` and ``cell_column`` of the centre, in cycles per image.
    """
    if block < 1 or block % 2 == 0:
        raise InputError(f"block: expected an odd number of bins, 1 or more, got {block}")
    bins = np.unique(plane_bins(height, width).reshape(-1, 2), axis=0)
    table = pd.DataFrame(bins, columns=["row", "column"])
    table[["cell_row", "cell_column"]] = _block_of(bins, block)
    if block > 1:  # DC shifts the brightness; a block stands for waves
        table = table[(table["row"] != 0) | (table["column"] != 0)]
    table["cell"] = table.groupby(["cell_row", "cell_column"]).ngroup()
    off = np.hypot(table["row"] - table["cell_row"], table["column"] - table["cell_column"])
    nearest = table.iloc[np.argsort(off, kind="stable")].drop_duplicates("cell")
    columns = ["cell", "row", "column", "cell_row", "cell_column"]
    return nearest.sort_values("cell")[columns].reset_index(drop=True)


def plane_bins(height: int, width: int) -> np.ndarray:
    """Name the wave, row and column, of every bin of the plane in ``fftshift`` order, (H, W, 2).

    A bin and its mirror image have the same.
    """
    row, column = np.indices((height, width)) - np.array([height // 2, width // 2])[:, None, None]
    mirror = np.where(2 * row == -height, row, -row)
    own_column = (column == 0) | (2 * column == -width)  # columns that mirror onto themselves
    flip = (column < 0) & ~own_column | own_column & (mirror > row)
    return np.stack([np.where(flip, mirror, row), np.abs(column)], axis=-1)


def _block_of(bins: np.ndarray, side: int) -> np.ndarray:
    """Return the centre ``(n, 2)`` of each wave's block; a block and its mirror image are one."""
    centre = np.floor((bins + side // 2) / side).astype(np.int64) * side
    centre[(centre[:, 1] == 0) & (centre[:, 0] < 0), 0] *= -1
    return centre


def heat_plane(table: pd.DataFrame, *, value: str = "drift") -> np.ndarray:
    """Lay a column of a heat map out over the plane of frequencies, zero frequency in the middle.

    The result is ``(H, W)`` in ``fftshift`` order; NaN where nothing was measured.
    """
    first = table.iloc[0]
    if first["block"] < 1:
        raise InputError("table: expected a heat map of blocks or waves, got one of rings")
    height, width = int(first["height"]), int(first["width"])
    # Half a cycle per pixel is its own mirror image: with blocks it would be a sliver of others.
    inner = np.ix_(*(np.arange(side).clip(first["block"] > 1) for side in (height, width)))
    bins = plane_bins(height, width)[inner].reshape(-1, 2)
    number = table.set_index(["row", "column"])["cell"]
    centres = pd.MultiIndex.from_arrays(_block_of(bins, int(first["block"])).T)
    cells = number.reindex(centres, fill_value=-1).to_numpy()
    values = table.set_index("cell")[value].reindex(range(table["cell"].max() + 1))
    return np.append(values, np.nan)[cells].reshape(height, width)
