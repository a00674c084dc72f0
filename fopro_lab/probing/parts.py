"""Long measurements in parts on disk: whoever is killed goes on from the last whole part."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fopro_lab.errors import InputError
from fopro_lab.files import atomic_path, write_json
from fopro_lab.progress import progress as show_progress

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
