"""A CSV and its pictures to one table: a row a picture."""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fopro_lab.data.csv_cells import EMPTY, NOT_KNOWN, read_cells
from fopro_lab.data.sources import SPLIT_WORDS, list_pictures, number_classes, refuse_twice
from fopro_lab.errors import InputError

USUAL_NAMES = {
    "image": "image image_id image_name filename file_name file-name file path isic_id",
    "class": "class_name class-name diagnosis dx finding_name label_name class label target",
    "group": "group patient_id patientid patient subject_id subject lesion_id lesion",
    "source": "source site scanner center centre hospital",
    "split": "split partition",
}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class CsvColumns:
    """Names of a CSV's columns; an empty one is looked for among the usual names.

    Example:
        >>> CsvColumns(image="photo").image
        'photo'
    """

    image: str = ""
    label: str = ""
    group: str = ""
    source: str = ""
    split: str = ""


def read_csv_pictures(
    csv_path: Path, *, root: Path, columns: CsvColumns, leave_out: bool = False
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    r"""Read a CSV and find its pictures below a folder.

    Args:
        csv_path: Separated by comma, semicolon or tab; a row a picture.
        root: Folder of the pictures, at any depth; names with or without extension.
        columns: Names of the columns.
        leave_out: Keep rows whose picture is missing, with the path where it should be: packing
            leaves them out and says so.

    Returns:
        The table of `read_folders` and the class names: integers in their order, else
        alphabetical. A picture without a group is its own.

    Raises:
        InputError: If a column, a picture or a label is missing, a picture comes twice, or
            integer labels have a gap.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("1.png", "2.png"):
        ...         _ = (Path(folder) / name).write_bytes(b"")
        ...     _ = (Path(folder) / "a.csv").write_text("image,dx\n1,nv\n2,mel\n")
        ...     where = Path(folder)
        ...     table, names = read_csv_pictures(where / "a.csv", root=where, columns=CsvColumns())
        >>> names, table["image"].tolist(), table["label"].tolist()
        (('mel', 'nv'), ['1', '2'], [1, 0])
    """
    frame = read_cells(csv_path)
    image_column = _find_column(frame, "image", columns.image, csv_path)
    class_column = _find_column(frame, "class", columns.label, csv_path)
    images = frame[image_column]
    _refuse_empty(images, images, csv_path, empty=frozenset({""}))
    _refuse_empty(frame[class_column], images, csv_path, empty=EMPTY)
    refuse_twice(images, where=csv_path)
    classes = _whole_numbers(frame[class_column], csv_path)
    labels, names = number_classes(classes, where=str(csv_path))
    known = {
        kind: _known(_optional_column(frame, kind, given, csv_path))
        for kind, given in (("group", columns.group), ("source", columns.source))
    }
    paths = pd.Series(_locate(images.tolist(), root, csv_path, leave_out))
    refuse_twice(paths, where=csv_path)
    table = pd.DataFrame(
        {
            "image": images,
            "path": paths,
            "label": labels,
            "group": known["group"].mask(known["group"] == "", images),
            "source": known["source"],
            "split": _read_split(frame, columns.split, csv_path),
        }
    )
    return table, names


def _find_column(frame: pd.DataFrame, kind: str, given: str, csv_path: Path) -> str:
    """Return the column's name; for the class, one of names goes before one of integers."""
    has = ", ".join(frame.columns)
    if given:
        if given not in frame.columns:
            raise InputError(f"{csv_path}: no column '{given}'; it has {has}")
        return given
    lower = {str(name).lower(): str(name) for name in frame.columns}
    known = [lower[name] for name in USUAL_NAMES[kind].split() if name in lower]
    if not known:
        raise InputError(
            f"{csv_path}: no {kind} column under a usual name; it has {has}; "
            f"name it: {kind}_column=..."
        )
    if kind == "class":
        named = [name for name in known if not all(map(NUMBER.fullmatch, frame[name]))]
        return (named or known)[0]
    return known[0]


def _optional_column(frame: pd.DataFrame, kind: str, given: str, csv_path: Path) -> pd.Series:
    if not given and not set(USUAL_NAMES[kind].split()) & set(frame.columns.str.lower()):
        return pd.Series("", index=frame.index)
    return frame[_find_column(frame, kind, given, csv_path)]


def _known(values: pd.Series) -> pd.Series:
    """Empty the cells that say that nothing is known: they are no name that pictures share."""
    return values.mask(values.str.casefold().isin(NOT_KNOWN), "")


def _read_split(frame: pd.DataFrame, given: str, csv_path: Path) -> pd.Series:
    """Read train, val, test; a column that was only guessed counts if it holds these words."""
    raw = _optional_column(frame, "split", given, csv_path)
    words = raw.str.lower().map(SPLIT_WORDS)
    if words.isna().any():
        if given:
            strange = raw[words.isna()].iloc[0]
            raise InputError(f"{csv_path}: {given}: expected train, val or test, got '{strange}'")
        return pd.Series("", index=frame.index)
    return words


def _whole_numbers(values: pd.Series, csv_path: Path) -> list[str]:
    """Read labels such as 1.0, which a table with gaps was saved with, as the integers they are."""
    texts: list[str] = values.tolist()
    if not all(map(NUMBER.fullmatch, texts)) or all(map(str.isdecimal, texts)):
        return texts
    for text in texts:
        if not float(text).is_integer() or float(text) < 0:
            raise InputError(
                f"{csv_path}: {values.name}: expected names or integers from 0 as classes, got "
                f"{text}; name the column of classes: class_column=..."
            )
    return [str(int(float(text))) for text in texts]


def _refuse_empty(
    values: pd.Series, images: pd.Series, csv_path: Path, *, empty: frozenset[str]
) -> None:
    found = values.index[values.str.casefold().isin(empty)]
    if len(found):
        who = images[found[0]] or f"line {found[0] + 2}"
        raise InputError(
            f"{csv_path}: {values.name}: {len(found)} empty, first of {who}; "
            "fill it in or remove the row"
        )


def _locate(images: list[str], root: Path, csv_path: Path, leave_out: bool) -> list[str]:
    """Find each picture by its path below ``root``, its file name, or its name without suffix."""
    files = list_pictures(root)
    by_path, start = set(files), os.path.join(root, "")
    names = Counter[str]()
    where: dict[str, str] = {}
    for file in files:
        name = file.rpartition("/")[2]
        for key in {name, name.rpartition(".")[0]}:
            names[key] += 1
            where[key] = file
    paths, missing = [], []
    for written in images:
        image = written
        if written not in by_path:  # then perhaps as Windows writes a path
            image = written.replace("\\", "/").removeprefix("./")
        if image in by_path:
            paths.append(start + image)
        elif names[image] == 1:
            paths.append(start + where[image])
        elif names[image] > 1:
            raise InputError(f"{csv_path}: {image}: {names[image]} pictures below {root} match")
        elif os.path.isabs(written) and os.path.isfile(written):
            paths.append(written)
        else:
            missing.append(written)
            paths.append(start + image)
    if missing and (not leave_out or len(missing) == len(images)):
        some = ", ".join(missing[:3])
        raise InputError(
            f"{csv_path}: {len(missing)} of {len(images)} pictures are not below {root}: {some}"
            f"{', ...' if len(missing) > 3 else ''}; the CSV belongs above or beside its pictures"
        )
    return paths
