"""Lists beside a table that say which images train or are tested, such as ``test_list.txt``."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fopro_lab.data import readers
from fopro_lab.data.readers import SPLIT_WORDS, closest, file_key, plain_name, table_ending
from fopro_lab.errors import InputError

OTHER_FILE, SEVERAL = -1, -2  # for a row, where a list names something else or several files
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
    for file in sorted((place if place.is_dir() else place.parent).iterdir()):
        sheet = table_ending(file.name) in (*readers.TABLES, *readers.TEXTS)
        if sheet and file != place and file.is_file() and len(_parts_in(file.name)) == 1:
            found[file] = _parts_in(file.name).pop()
    return found


def _parts_in(name: str) -> set[str]:
    """Return the parts of a split that a name has words of; validation is drawn from training."""
    parts = {SPLIT_WORDS[word] for word in SPLIT_WORD.findall(plain_name(name))}
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
            lines = [cells for _, cells in readers.read_rows(file)]
        except InputError:  # no text
            lines = []
        columns = [[" ".join(cells) for cells in lines], *map(list, zip(*lines, strict=False))]
        index = [own[1:] for own in columns[1:] if INDEX.fullmatch(own[0].casefold())]
        if index and all(map(str.isdecimal, index[0])):
            rows = [int(cell) for cell in index[0]]
            by_number = [f"lists by index have numbers of rows of {path.name}, from 0"]
        else:
            found = [[_named_row(cell, place_of) for cell in own] for own in columns]
            best = max(found, key=lambda own: len({*own} - {OTHER_FILE}), default=[])
            rows, gone = [row for row in best if row != OTHER_FILE], best.count(OTHER_FILE)
            if rows:
                _check_list(rows, part, file, path)
            if rows and gone > 1:  # one may be a header
                notes.append(f"{file.name}: {gone:,} of its lines name no image of {path.name}")
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


def _check_list(rows: Sequence[int], part: str, file: Path, path: Path) -> None:
    """Refuse a list of names of which it is not clear which images of a table it means."""
    why = ""
    if unclear := rows.count(SEVERAL):
        why = f"{unclear:,} of its lines fit several images; write their folders"
    elif len(set(rows)) < len(rows):
        why = f"its lines name {len(set(rows)):,} images {len(rows):,} times"
    elif part != "val" and _parts_in(path.name) - {part}:
        why = f"{len(rows):,} of its images are those of {path.name} too; write their folders"
    if why:
        raise InputError(f"{file}: {why}; {MEND}")


def _place_images(images: pd.Series, path: Path, root: Path) -> dict[str, dict[str, int]]:
    """Return the files of each name below the table and ``root``, with the row that has it."""
    root = root.resolve()
    paths, _ = readers.find_images(images, root, where=path, way_out=IMAGE_DIR, leave_out=True)
    row_of: dict[str, int] = {}
    for folder in {root, path.resolve().parent}:
        files = [os.path.join(folder, file) for file in readers.sort_files(folder)[0]]
        row_of |= dict.fromkeys(files, OTHER_FILE)
    row_of |= {file: row for row, file in enumerate(paths)}
    place_of: dict[str, dict[str, int]] = {}
    for file, row in row_of.items():
        place_of.setdefault(file_key(file), {})[file] = row
    return place_of


def _named_row(cell: str, place_of: dict[str, dict[str, int]]) -> int:
    """Return the table's row of the image that a list names, or what else it names."""
    files = place_of.get(file_key(cell), {})
    rows = {files[file] for file in closest(cell, list(files))}
    return rows.pop() if len(rows) == 1 else SEVERAL if rows else OTHER_FILE
