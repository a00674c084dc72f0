"""The Fourier basis heat map: which single waves upset a teacher or a reader of classes."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.evaluation.bootstrap import LEVEL, bootstrap_weights
from fopro_lab.io import atomic_path, write_json
from fopro_lab.io import progress as show_progress
from fopro_lab.probing.features import (
    Encoder,
    LinearProbe,
    Precision,
    Reader,
    encode,
    teacher_device,
)
from fopro_lab.probing.ring_response import check_rings

By = Literal["rings", "blocks", "full"]


def basis_wave(row: int, column: int, *, height: int, width: int) -> np.ndarray:
    """Return the cosine wave of one frequency, with a Euclidean norm of 1.

    Args:
        row: Cycles per image, vertically.
        column: Cycles per image, horizontally.
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
        height: Of the images, pixels.
        width: Of the images, pixels.
        by: ``"rings"`` takes some waves of each frequency ring, ``"blocks"`` some of each square
            block of frequencies, ``"full"`` takes every wave, each its own cell, DC among them.
        edges: For rings: ``R + 1`` increasing frequencies, cycles per pixel.
        block: For blocks: side, in bins, odd; a block is centred at multiples of it.
        waves: At most this many of a cell: of a ring drawn without replacement, of a block those
            nearest to its centre. 0 takes 8 of a ring and 1 of a block.
        seed: Seed of the draw.

    Returns:
        A row a wave: ``cell``, ``row``, ``column`` (cycles per image), ``cell_row``,
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


PART = 32  # waves a file: a kill loses at most so many


def measure_parts(
    measure: Callable[[int], np.ndarray],
    count: int,
    *,
    identity: Mapping[str, Any],
    out: Path | str | None = None,
    label: str = "measuring",
    progress: bool = True,
) -> np.ndarray:
    """Measure one thing after another, keeping whole parts in a folder.

    Args:
        measure: Measures number ``k``; arrays of one shape and type.
        count: How many there are.
        identity: What decides the numbers; kept in the folder and compared.
        out: Folder; None keeps nothing.
        label: What is being done, for the progress.
        progress: Say how far it is.

    Returns:
        ``(count, ...)``.

    Raises:
        InputError: If the folder holds parts of another measurement.
        WorkError: If the disk is full or may not be written.

    Example:
        >>> measure_parts(lambda k: np.full(2, k), 3, identity={}).tolist()
        [[0, 0], [1, 1], [2, 2]]
    """
    folder = None if out is None else Path(out)
    if folder is not None:
        _claim(folder, identity)
    parts = []
    starts = range(0, count, PART)
    work = show_progress(starts, total=len(starts), label=label) if progress else starts
    for start in work:
        stop = min(start + PART, count)
        file = None if folder is None else folder / f"part-{start:06d}.npy"
        if file is not None and file.is_file():
            parts.append(np.load(file, allow_pickle=False))
            continue
        part = np.stack([measure(k) for k in range(start, stop)])
        if file is not None:
            with atomic_path(file) as temporary, open(temporary, "wb") as stream:
                np.save(stream, part)
        parts.append(part)
    return np.concatenate(parts)


def _claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Note in a folder what is measured there, or refuse one of something else."""
    note = folder / "identity.json"
    mine = json.loads(json.dumps(dict(identity), default=str))
    if not note.is_file():
        write_json(note, mine)
        return
    theirs = json.loads(note.read_text(encoding="utf-8"))
    changed = [key for key in sorted(mine | theirs) if mine.get(key) != theirs.get(key)]
    if changed:
        raise InputError(
            f"{folder}: holds parts of another measurement ({', '.join(changed)} differ); "
            "choose another folder, or remove it"
        )


INTERVAL = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


def basis_heat_map(
    asked: Encoder | Reader,
    images: Tensor,
    *,
    by: By = "blocks",
    labels: np.ndarray | None = None,
    probe: LinearProbe | None = None,
    edges: Sequence[float] = (),
    block: int = 7,
    waves: int = 0,
    size: float = 0.0,
    units: np.ndarray | None = None,
    out: Path | str | None = None,
    precision: Precision = "32-true",
    batch_size: int = 64,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Add single waves of one size to the images and measure what they do.

    A wave ``v U`` of Euclidean norm v is added to every channel, with both signs, before the
    normalisation, and the sum is clipped to [0, 1], as published.

    Args:
        asked: A frozen teacher, for the drift of its features, and with ``probe`` and ``labels``
            for the error rate; or a `Reader`, for the error rate alone.
        images: ``(N, 3, H, W)`` in [0, 1].
        by: ``"rings"``, ``"blocks"`` or ``"full"``; see `basis_cells`.
        labels: Class of each image, ``(N,)``.
        probe: Of this teacher.
        edges: For rings: ``R + 1`` increasing frequencies, cycles per pixel.
        block: For blocks: side in bins, odd.
        waves: Waves measured of each ring or block; 0 takes 8 of a ring, 1 of a block.
        size: v, in units of [0, 1]; 0 takes 4 at 32 px, growing with the side.
        units: Lesion or patient of each image, drawn as a whole; None is one each.
        out: Folder for what is measured so far; a killed map goes on from there. None keeps
            nothing.
        precision: As in `encode`.
        batch_size: Images a pass.
        resamples: Bootstrap resamples of the images; 0 leaves intervals out.
        seed: Seed of the drawn waves and of the bootstrap.
        progress: Say how far it is.

    Returns:
        A row a cell: ``by``, ``cell``, ``row``, ``column`` (centre of a block, cycles per
        image), ``low``, ``high`` (of a ring, cycles per pixel), ``block``, ``height``,
        ``width``, ``waves``, ``size``, ``drift`` and ``error`` (means over images, signs and
        waves; NaN where not asked), each with ``_low`` and ``_high`` (95 % interval),
        ``clean_error``, ``n``.

    Raises:
        ShapeError: If labels or units do not fit the images.
        InputError: If a number is wrong, or ``out`` holds another map.

    Source: Yin et al., NeurIPS 2019, arXiv:1906.08988.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> table = basis_heat_map(load_teacher("builtin"), torch.rand(2, 3, 16, 16), by="rings",
        ...     edges=[0, 0.25, 0.75], waves=2, resamples=20, progress=False)
        >>> table[["cell", "waves", "n"]].values.tolist()
        [[0, 2, 2], [1, 2, 2]]
    """
    count, height, width = len(images), *images.shape[-2:]
    for name, given in (("labels", labels), ("units", units)):
        if given is not None and len(given) != count:
            raise ShapeError(f"{name}: expected one for each of {count}, got {len(given)}")
    if by == "rings":
        check_rings(edges, height=height, width=width)
    if not 0 <= size < float("inf"):
        raise InputError(f"size: expected a finite norm of 0 or above, got {size}")
    size = size or wave_size(height, width)
    cells = basis_cells(height, width, by=by, edges=edges, block=block, waves=waves, seed=seed)
    ask = _ask_by(asked, probe, labels, precision)
    device = asked.device if isinstance(asked, Reader) else teacher_device(asked)
    truth = np.zeros(count, dtype=np.int64) if labels is None else np.asarray(labels)
    with torch.inference_mode():
        passes = []
        for rows in torch.arange(count).split(max(1, batch_size // 2)):
            pixels = images[rows].to(device)
            passes.append((pixels, *ask(pixels), truth[rows.numpy()]))
        clean = np.concatenate([_wrong(found, true) for _, _, found, true in passes])

        def measure(place: int) -> np.ndarray:
            row, column = int(cells["row"][place]), int(cells["column"][place])
            wave = size * basis_wave(row, column, height=height, width=width)
            shift = torch.from_numpy(wave).to(device, images.dtype)
            return np.concatenate([_answers(ask, shift, *one) for one in passes], axis=1)

        values = measure_parts(
            measure,
            len(cells),
            out=out,
            identity={
                "what": "basis heat map",
                "asked": asked.name,
                "teacher": _digest(json.dumps(getattr(asked, "card", {}), default=str)),
                "probe": _digest(probe.weight) if probe is not None else "",
                "images": _digest(images.cpu().numpy()),
                "labels": _digest(truth),
                "waves": _digest(cells.to_numpy()),
                "size": size,
                "precision": precision,
            },
            label=f"heat map of {asked.name}",
            progress=progress,
        )
    table = _pool(values, clean, cells, units, resamples=resamples, seed=seed)
    limits = np.full((len(table), 2), np.nan)
    if by == "rings":
        limits = np.array(list(pairwise(edges)))[table["cell"]]
    return table.assign(
        by=by,
        low=limits[:, 0],
        high=limits[:, 1],
        block={"rings": 0, "blocks": block, "full": 1}[by],
        height=height,
        width=width,
        size=size,
    )


def heat_plane(table: pd.DataFrame, *, value: str = "drift") -> np.ndarray:
    """Lay a heat map out over the whole plane of frequencies, zero frequency in the middle.

    Args:
        table: Of `basis_heat_map`.
        value: Column to show.

    Returns:
        ``(H, W)`` in ``fftshift`` order; NaN where nothing was measured.

    Example:
        >>> table = pd.DataFrame({"by": "rings", "cell": [0], "low": 0.0, "high": 0.3, "height": 4,
        ...                       "width": 4, "block": 0, "drift": 0.5})
        >>> heat_plane(table)[2].tolist()
        [nan, 0.5, nan, 0.5]
    """
    first = table.iloc[0]
    height, width = int(first["height"]), int(first["width"])
    rows, columns = plane_bins(height, width)
    bins = pd.DataFrame({"row": rows.ravel(), "column": columns.ravel()})
    if first["by"] == "rings":
        edges = [*table["low"], table["high"].iloc[-1]]
        cells = cell_of_ring(bins, edges, height=height, width=width)
    else:
        side = int(first["block"])
        places = zip(table["row"], table["column"], strict=True)
        number = dict(zip(places, table["cell"], strict=True))
        centres = zip(*block_centres(bins.to_numpy(), side), strict=True)
        cells = np.array([number.get(centre, -1) for centre in centres])
    values = np.append(
        table.set_index("cell")[value].reindex(range(table["cell"].max() + 1)), np.nan
    )
    return values[cells].reshape(height, width)


Ask = Callable[[Tensor], tuple[Tensor | None, np.ndarray | None]]


def _ask_by(
    asked: Encoder | Reader,
    probe: LinearProbe | None,
    labels: np.ndarray | None,
    precision: Precision,
) -> Ask:
    """Return a function from images to features and classes, either of which may be none."""
    if isinstance(asked, Reader):
        if labels is None:
            raise InputError("labels: expected one for each image, as a reader gives classes")
        return lambda images: (None, asked.predict(images))

    def ask(images: Tensor) -> tuple[Tensor | None, np.ndarray | None]:
        features = encode(asked, images, precision=precision)
        if probe is None or labels is None:
            return features.double(), None
        return features.double(), probe.predict(features.float().cpu().numpy())

    return ask


def _answers(
    ask: Ask,
    shift: Tensor,
    images: Tensor,
    before: Tensor | None,
    _: np.ndarray | None,
    labels: np.ndarray,
) -> np.ndarray:
    """Return drift and error of each image, ``(2, B)``, mean of the wave's two signs."""
    both = torch.cat([images + shift, images - shift]).clamp(0, 1)
    after, classes = ask(both)
    drift = np.full(len(images), np.nan)
    if before is not None and after is not None:
        moved = 1 - torch.cosine_similarity(torch.cat([before, before]), after, dim=1)
        drift = moved.view(2, -1).mean(dim=0).cpu().numpy()
    wrong = _wrong(classes, np.concatenate([labels, labels])).reshape(2, -1).mean(axis=0)
    return np.stack([drift, wrong]).astype(np.float32)


def _wrong(classes: np.ndarray | None, labels: np.ndarray) -> np.ndarray:
    return np.full(len(labels), np.nan) if classes is None else (classes != labels).astype(float)


def _pool(
    values: np.ndarray,
    clean: np.ndarray,
    cells: pd.DataFrame,
    units: np.ndarray | None,
    *,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Average waves ``(waves, 2, N)`` over their cells, then over the images, with intervals."""
    count = values.shape[2]
    cell = cells["cell"].to_numpy()
    starts = np.flatnonzero(np.r_[True, cell[1:] != cell[:-1]])
    number = np.diff(np.r_[starts, len(cell)])
    pooled = np.add.reduceat(values.astype(np.float64), starts) / number[:, None, None]
    first = cells.iloc[starts].reset_index(drop=True)
    table = pd.DataFrame(
        {"cell": first["cell"], "row": first["cell_row"], "column": first["cell_column"]}
    ).assign(waves=number)
    same = np.zeros(count, dtype=np.int64)
    units = np.arange(count) if units is None else units
    weights = bootstrap_weights(same, units, resamples=resamples, seed=seed)
    for place, name in enumerate(("drift", "error")):
        means = pooled[:, place].mean(axis=1)
        table[name] = means
        if resamples:
            drawn = pooled[:, place] @ (weights / weights.sum(axis=0))
            low, high = np.quantile(drawn, INTERVAL, axis=1)
            table = table.assign(**{f"{name}_low": low, f"{name}_high": high})
    return table.assign(clean_error=clean.mean(), n=count)


def _digest(content: np.ndarray | str) -> str:
    data = content.encode() if isinstance(content, str) else np.ascontiguousarray(content).tobytes()
    return hashlib.sha256(data).hexdigest()
