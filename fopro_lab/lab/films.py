"""Masks of a prompt in the order in which it was explored, read from what a run wrote."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fopro_lab.errors import InputError
from fopro_lab.evaluation import Run

# Written by `fopro_lab.training.masks`; the names are part of a run folder's form.
RINGS_FILE, MAPS_FILE = "exploration_gains.parquet", "exploration_masks.safetensors"
COLUMNS = ("exploration", "step", "low", "high", "gain")
SIDE = 64  # bins of a plane that is drawn from ring means
Source: TypeAlias = str | Path | Run | pd.DataFrame


@dataclass(frozen=True, eq=False)
class Film:
    """The masks of one run.

    Attributes:
        name: Of the run.
        times: ``(exploration, step)`` of each mask, in order.
        planes: ``(T, H, W)``, gains above 0, zero frequency in the middle.
        rings: ``(T, R)``, mean gain of each ring.
        edges: ``(R + 1,)``, cycles per pixel.
        whole: Whether the planes are the masks themselves; else ring means.

    Example:
        >>> table = pd.DataFrame({"exploration": [1], "step": [0], "low": [0.0], "high": [0.75],
        ...                       "gain": [2.0]})
        >>> film_of(table, name="mine").at((1, 5))
        0
    """

    name: str
    times: list[tuple[int, int]]
    planes: np.ndarray
    rings: np.ndarray
    edges: np.ndarray
    whole: bool = True

    def at(self, time: tuple[int, int]) -> int:
        """Tell which mask stood at a time: the last one of then or before, else the first."""
        return max(0, sum(each <= time for each in self.times) - 1)


def film_of(source: Source, *, name: str = "") -> Film:
    """Read the masks of one run.

    Args:
        source: A run folder, or a folder that notebook 03 wrote; or a table a row a mask and ring
            with ``exploration``, ``step``, ``low``, ``high`` (cycles per pixel) and ``gain``, which
            is drawn as rings.
        name: Its title; empty takes the folder's.

    Returns:
        The film.

    Raises:
        InputError: If the folder has no masks, they are damaged, or the table lacks a column.

    Example:
        >>> film_of("nowhere")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere/exploration_gains.parquet: no such file; ...
    """
    if isinstance(source, pd.DataFrame):
        return _film(source, name=name or "prompt", where="table")
    folder = source.path if isinstance(source, Run) else Path(source).expanduser()
    for file in (RINGS_FILE, MAPS_FILE):
        if not (folder / file).is_file():
            raise InputError(
                f"{folder / file}: no such file; training writes it where a prompt is explored "
                "(method=fopro or random, no prompt_file), notebook 03 as well"
            )
    try:
        table = pd.read_parquet(folder / RINGS_FILE)
        planes = load_file(folder / MAPS_FILE)["gain"].astype(np.float32)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(f"{folder}: expected whole files of masks ({error})") from None
    named = name or folder.resolve().name
    return _film(table, name=named, where=str(folder / RINGS_FILE), planes=planes)


def films_of(runs: Source | Iterable[Source] | Mapping[str, Source]) -> list[Film]:
    """Read the masks of one run or several.

    Args:
        runs: As `film_of`, or several of them, with titles or without.

    Returns:
        A film a run.

    Raises:
        InputError: If there is none, or as `film_of`.

    Example:
        >>> films_of([])
        Traceback (most recent call last):
        fopro_lab.errors.InputError: runs: expected at least one, got none
    """
    if isinstance(runs, Mapping):
        films = [film_of(source, name=name) for name, source in runs.items()]
    elif isinstance(runs, Source):
        films = [film_of(runs)]
    else:
        films = [film_of(source) for source in runs]
    if not films:
        raise InputError("runs: expected at least one, got none")
    return films


def _film(table: pd.DataFrame, *, name: str, where: str, planes: np.ndarray | None = None) -> Film:
    missing = [column for column in COLUMNS if column not in table]
    if missing or table.empty:
        got = f"no column '{missing[0]}'" if missing else "no rows"
        raise InputError(f"{where}: expected columns {', '.join(COLUMNS)}, got {got}")
    wide = table.pivot(index=["exploration", "step"], columns="low", values="gain")
    edges = np.append(wide.columns.to_numpy(dtype=float), float(table["high"].max()))
    rings = wide.to_numpy(dtype=float)
    drawn = _drawn(rings, edges) if planes is None else planes
    if len(drawn) != len(rings) or not (np.isfinite(rings) & (rings > 0)).all():
        raise InputError(f"{where}: expected a finite gain above 0 for each mask and ring")
    times = [(int(exploration), int(step)) for exploration, step in wide.index]
    return Film(name, times, drawn, rings, edges, whole=planes is not None)


def _drawn(rings: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Draw ring means over the plane, ``(T, SIDE, SIDE)``; beyond the rings the gain is 1."""
    places = np.fft.fftshift(np.fft.fftfreq(SIDE))
    ring = np.digitize(np.hypot(places[:, None], places[None]), edges, right=True)
    ones = np.ones((len(rings), 1))
    return np.concatenate([ones, rings, ones], axis=1)[:, ring]
