"""Lists beside a table that say which images train or are tested, such as ``test_list.txt``."""

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fopro_lab.data.cells import TABLES, TEXTS, read_rows, table_ending
from fopro_lab.data.readers import (
    SPLIT_WORDS,
    as_path,
    closest,
    find_images,
    plain_name,
    sort_files,
    stem_of,
)
from fopro_lab.errors import InputError

OTHER_FILE, SEVERAL = -1, -2  # for a row, where a list names another file or several rows
IMAGE_DIR = "give the folder that holds them: image_dir=..."
MEND = "mend the lists, or draw another split: split_column=none"
INDEX = re.compile(r"(row_?)?(index|indexes|indices)")
SPLIT_WORD = re.compile(r"(?<![a-z])(train|valid|val|test|dev)")


def not_used(files: Sequence[str]) -> list[str]:
    """Return a note on files that are passed over, if there are any."""
    return [f"not used: {', '.join(files[:4])}{', ...' * (len(files) > 4)}"] if files else []


def find_lists(place: Path) -> dict[Path, str]:
    """Find files that are called after a part, ``test_list.txt``, and the part of each.

    ``place`` is their folder, or a table beside them.
    """
    found: dict[Path, str] = {}
    for file in sorted(place.iterdir() if place.is_dir() else place.parent.iterdir()):
        if table_ending(file.name) in (*TABLES, *TEXTS) and file != place and file.is_file():
            parts = _parts_in(file.name)
            if len(parts) == 1:
                found[file] = parts.pop()
    return found


def _parts_in(*names: str) -> set[str]:
    """Return the parts of a split that names have words of; validation is drawn from training."""
    words = itertools.chain(*(SPLIT_WORD.findall(plain_name(name)) for name in names))
    parts = {SPLIT_WORDS[word] for word in words}
    return parts - {"val"} if "train" in parts else parts


def read_lists(
    files: dict[Path, str], images: pd.Series, path: Path, root: Path
) -> tuple[pd.Series, list[str], list[str]]:
    """Return the part that lists give each image, empty for none; the lists' names; and notes.

    A list has numbers of the table's rows, from 0, in a column that is headed ``index``, or names
    of images in any other. What has neither, or names other files, is not used.
    """
    place_of = _place_images(images, path, root) if files else {}
    parts = np.full(len(images), "", dtype="U5")
    used, unused, notes, by_number = list[str](), list[str](), list[str](), list[str]()
    for file, part in files.items():
        try:
            lines = [cells for _, cells in read_rows(file)]
        except InputError:  # no text
            lines = []
        columns = [[" ".join(cells) for cells in lines], *map(list, zip(*lines, strict=False))]
        index = [own[1:] for own in columns[1:] if INDEX.fullmatch(own[0].casefold())]
        if index and all(map(str.isdecimal, index[0])):
            rows = [int(cell) for cell in index[0]]
            by_number = [f"lists by index have numbers of rows of {path.name}, from 0"]
        else:
            rows, told = _listed_rows(columns, file, part, place_of, path)
            notes += told
            if not rows and told:
                continue
        if not rows:
            unused.append(file.name)
            continue
        if max(rows) >= len(images) or not np.isin(parts[rows], ("", part)).all():
            raise InputError(
                f"{file}: expected images of {path.name} that no other part's list names; {MEND}"
            )
        parts[rows] = part
        used.append(file.name)
    if used and "train" not in parts:
        parts[parts == ""] = "train"
        notes.append("images in none of the lists are for training")
    notes += by_number + not_used(unused)
    return pd.Series(parts, index=images.index, dtype=object), used, notes


def _listed_rows(
    columns: Sequence[Sequence[str]],
    file: Path,
    part: str,
    place_of: dict[str, dict[str, int | None]],
    path: Path,
) -> tuple[list[int], list[str]]:
    """Return the table's rows that the best column of a list of names names, and notes."""

    def count(column: Sequence[int | None]) -> tuple[int, int, int]:
        """Rank a column by the images it names, the fewer repeats, and other files."""
        rows = [row for row in column if row is not None and row >= 0]
        return len(set(rows)), -len(rows), sum(row is not None for row in column)

    found = [[_named_row(cell, part, place_of) for cell in own] for own in columns]
    best = max(found, key=count, default=[])
    rows = [row for row in best if row is not None and row >= 0]
    if unclear := best.count(SEVERAL):
        why = f"{unclear:,} of its lines fit several images; write their folders"
        raise InputError(f"{file}: {why}, {MEND}")
    if not rows:
        other = f"not used: {file.name}, it names files that {path.name} does not"
        return [], [other] if OTHER_FILE in best else []
    different, named_after = len(set(rows)), _parts_in(path.name)
    if 2 * different < len(rows):
        why = f"its lines name {different:,} images {len(rows):,} times"
        raise InputError(f"{file}: {why}; {MEND}")
    if part != "val" and named_after and part not in named_after:
        raise InputError(
            f"{file}: {different:,} of its images are those of {path.name} too; write their "
            f"folders, name the table of all images after no part, or {MEND}"
        )
    notes = [f"{file.name}: {len(rows) - different:,} of its lines repeat an image"]
    notes = notes if different < len(rows) else []
    if len(best) - len(rows) > 1:  # one may be a header
        gone = f"{len(best) - len(rows):,} of its lines name no image of {path.name}"
        notes.append(f"{file.name}: {gone}")
    return rows, notes


def _place_images(images: pd.Series, path: Path, root: Path) -> dict[str, dict[str, int | None]]:
    """Return the files of each name below the table and ``root``, with the row that has it."""
    root = root.resolve()
    paths, _ = find_images(images, root, where=path, way_out=IMAGE_DIR, leave_out=True)
    row_of: dict[str, int | None] = {}
    for folder in {root, path.resolve().parent}:
        row_of |= dict.fromkeys(os.path.join(folder, file) for file in sort_files(folder)[0])
    row_of |= {file: row for row, file in enumerate(paths)}
    place_of: dict[str, dict[str, int | None]] = {}
    for file, row in row_of.items():
        place_of.setdefault(file_key(file), {})[file] = row
    return place_of


def _named_row(cell: str, part: str, place_of: dict[str, dict[str, int | None]]) -> int | None:
    """Return the table's row of the image that a list of a part names; None if it is no image.

    Written folders decide between files of one name, else a folder that is called after the part.
    """
    files = place_of.get(file_key(cell))
    if not files:
        return None
    near = closest(as_path(cell), list(files))
    if len(near) > 1 and "/" not in as_path(cell):
        top = len(os.path.commonpath(near))
        own = [file for file in near if part in _parts_in(*Path(file[top:]).parts[:-1])]
        near = own or near
    rows = [row for file in near if (row := files[file]) is not None]
    return OTHER_FILE if not rows else rows[0] if len(rows) == 1 else SEVERAL


def file_key(name: str) -> str:
    """Return what names of one image have in common, whatever folder, case, or ending."""
    return plain_name(stem_of(as_path(name)))
