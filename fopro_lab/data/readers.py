"""Read a folder per class, or a CSV and its images, into one table with a row per image."""

import csv
import io
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from fopro_lab.data.decoding import FileReader, Reader
from fopro_lab.errors import InputError

COLUMNS = ("image", "path", "label", "group", "source", "split")
SUFFIXES = frozenset(".jpg .jpeg .jpe .jfif .png .bmp .tif .tiff .webp .gif .ppm".split())
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
USUAL_NAMES = {
    "image": "image image_id image_name filename file_name file-name file path isic_id",
    "class": "class_name class-name diagnosis dx finding_name label_name class label target",
    "group": "group patient_id patientid patient subject_id subject lesion_id lesion",
    "source": "source site scanner center centre hospital",
    "split": "split partition",
}
# How tables write an empty cell, and how people write that a group or a source is not known, in
# lower case; a class may well be called 'none' or 'unknown'.
EMPTY = frozenset({"", "nan", "na", "n/a", "<na>", "null", "#n/a"})
NOT_KNOWN = EMPTY | frozenset(
    {"none", "unknown", "not known", "unspecified", "missing", "not available", "n.a.", "-", "--"}
    | {"?", ".", "nil", "nat", "undefined"}
)


class Listing(NamedTuple):
    """The images of a data set, with table, class names and reader as of a `Dataset`."""

    table: pd.DataFrame
    class_names: tuple[str, ...]
    reader: Reader
    files: list[str]  # their sizes and times stand for the pixels
    passed_over: tuple[str, ...] = ()


def list_files(
    images: Sequence[str],
    paths: Sequence[str],
    classes: tuple[Sequence[int], tuple[str, ...]],
    *,
    groups: Sequence[str] | None = None,
    sources: Sequence[str] | str = "",
    splits: Sequence[str] | str = "",
    passed_over: tuple[str, ...] = (),
) -> Listing:
    """Put image files into a listing; ``classes`` is a label per image and the class names."""
    labels, names = classes
    groups = images if groups is None else groups  # an image without a group is its own
    groups = [group or image for group, image in zip(groups, images, strict=True)]
    columns = [images, paths, labels, groups, sources, splits]
    table = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))
    return Listing(table, names, FileReader(tuple(paths)), list(paths), passed_over)


def sort_files(folder: Path | str) -> tuple[list[str], list[str]]:
    """List images and other files below a folder, sorted, relative, with forward slashes.

    Hidden files are in neither list; links to folders are followed, each folder once.
    """
    images: list[str] = []
    others: list[str] = []
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from None

    for parent, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else [name for name in folders if name[0] != "."]
        if real in seen:
            continue
        seen.add(real)
        inside = os.path.relpath(parent, folder).replace(os.sep, "/")
        prefix = "" if inside == "." else inside + "/"
        for name in files:
            if name[0] != ".":
                is_image = os.path.splitext(name)[1].lower() in SUFFIXES
                (images if is_image else others).append(prefix + name)
    return sorted(images), sorted(others)


def read_folders(root: Path) -> Listing:
    """Read a folder per class, or train, val and test folders with a folder per class in each."""
    images, others = sort_files(root)
    if not images:
        suffixes = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        raise InputError(f"{root}: expected images, found none ({suffixes})")
    parts = [image.split("/") for image in images]
    tops = {part[0].lower() for part in parts}
    depth = 1 if "train" in {SPLIT_WORDS.get(top) for top in tops} else 0
    if depth and not tops <= SPLIT_WORDS.keys():
        strange = min(tops - SPLIT_WORDS.keys())
        raise InputError(f"{root}: expected train, val and test folders only, found '{strange}'")
    for image, part in zip(images, parts, strict=True):
        if len(part) < depth + 2:
            raise InputError(f"{root}: expected a folder per class, found {image} outside of one")
    return list_files(
        images,
        [os.path.join(root, image) for image in images],
        number_classes([part[depth] for part in parts], where=root),
        splits=[SPLIT_WORDS[part[0].lower()] if depth else "" for part in parts],
        passed_over=tuple(others),
    )


def number_classes(
    classes: Sequence[str], *, where: Path | str
) -> tuple[list[int], tuple[str, ...]]:
    """Return the label of each image, and the class names in the order of the labels.

    Integers are ordered by value, other names alphabetically. A single class, a gap in integers,
    and names that differ only in case, space, encoding of accents or leading zeros are refused.
    """
    names = sorted(set(classes))
    first_of: dict[str | int, str] = {}
    for name in names:
        plain = unicodedata.normalize("NFC", name).strip().casefold()
        other = first_of.setdefault(int(plain) if plain.isdecimal() else plain, name)
        if other != name:
            raise InputError(
                f"{where}: classes '{other}' and '{name}' look like one and the same; write them "
                "alike, or give them names that differ"
            )
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
        first, last = int(names[0]), int(names[-1])
        missing = sorted(set(range(first, min(last, first + len(names)))) - set(map(int, names)))
        if missing:
            raise InputError(
                f"{where}: labels: expected integers without a gap, got {', '.join(names[:10])} "
                f"and no {missing[0]}; renumber them or use a column of names"
            )
    if len(names) < 2:
        raise InputError(f"{where}: expected two classes or more, found '{names[0]}' alone")
    label = {name: number for number, name in enumerate(names)}
    return [label[name] for name in classes], tuple(names)


def refuse_twice(images: Iterable[str], *, where: Path | str) -> None:
    """Refuse a list that names an image more than once."""
    repeated = [image for image, count in Counter(images).items() if count > 1]
    if repeated:
        more = f" and {len(repeated) - 1:,} more" if len(repeated) > 1 else ""
        raise InputError(
            f"{where}: expected each image once, got {repeated[0]} twice{more}; "
            "remove the repeated ones"
        )


def read_cells(path: Path, *, needed: Sequence[str] = ()) -> pd.DataFrame:
    """Read every cell of a CSV as stripped text, so that an id such as 0012 keeps its zeros.

    The file is UTF-8, separated by comma, semicolon or tab, whichever the header has most of.
    Empty lines and columns without a name are left out.
    """
    # Not pandas.read_csv: it pads short lines and takes a first column for an index in silence.
    try:
        text = path.read_bytes().decode("utf-8-sig")
        header = next((line for line in text.splitlines() if line.strip()), "")
        unquoted = "".join(header.split('"')[::2])
        lines = io.StringIO(text, newline="")
        reader = csv.reader(lines, delimiter=max(",;\t", key=unquoted.count), strict=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, UnicodeDecodeError):
            reason = "it is not UTF-8; save it as CSV UTF-8"
        raise InputError(f"{path}: cannot be read as CSV ({reason})") from None
    rows = [(line, row) for line, row in rows if any(row)]
    if len(rows) < 2:
        raise InputError(f"{path}: expected a header and a row per image, found {len(rows)} lines")
    names = rows.pop(0)[1]
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise InputError(f"{path}: expected columns of different names, got '{twice[0]}' twice")
    for line, row in rows:
        if not any(row[len(names) :]):  # spreadsheets like to write empty cells at the end
            del row[len(names) :]
        if len(row) != len(names):
            raise InputError(
                f"{path}: line {line}: expected {len(names)} cells as in the header, got {len(row)}"
            )
    cells = [row for _, row in rows]
    frame = pd.DataFrame(cells, columns=names).loc[:, [name != "" for name in names]]
    for name in needed:
        if name not in frame:
            raise InputError(f"{path}: no column '{name}'; it has {', '.join(frame)}")
    return frame


def read_csv_images(
    path: Path, *, root: Path, columns: Mapping[str, str], leave_out: bool = False
) -> Listing:
    """Read a CSV, a row per image, and find its images below a folder, at any depth.

    ``columns`` names columns by their kind; others are looked for under their usual names. With
    ``leave_out`` rows whose image is missing stay: packing leaves them out and says so.
    """
    frame = read_cells(path, needed=list(columns.values()))
    image, given_class, group, source, split = (
        _find_column(frame, kind, columns.get(kind, ""), path) for kind in USUAL_NAMES
    )
    for column, empty in ((image, frozenset({""})), (given_class, EMPTY)):
        found = column.index[column.str.casefold().isin(empty)]
        if len(found):
            who = image[found[0]] or f"line {found[0] + 2}"
            way_out = "fill it in or remove the row"
            raise InputError(
                f"{path}: {column.name}: {len(found)} empty, first of {who}; {way_out}"
            )
    refuse_twice(image, where=path)
    classes = number_classes(_whole_numbers(given_class, path), where=path)
    way_out = "the CSV belongs above or beside its images"
    paths = find_images(image, root, where=path, way_out=way_out, leave_out=leave_out)
    refuse_twice(paths, where=path)
    parts = split.str.lower().map(SPLIT_WORDS)
    if parts.isna().any():
        if columns.get("split"):
            strange = split[parts.isna()].iloc[0]
            raise InputError(f"{path}: {split.name}: expected train, val or test, got '{strange}'")
        parts = pd.Series("", index=frame.index)  # only guessed: a column of something else
    # What says that nothing is known is no name that images share.
    group, source = (each.mask(each.str.casefold().isin(NOT_KNOWN), "") for each in (group, source))
    return list_files(image, paths, classes, groups=group, sources=source, splits=parts)


def _find_column(frame: pd.DataFrame, kind: str, given: str, path: Path) -> pd.Series:
    """Return the named column, else the first under a usual name; empty texts if there is none."""
    lower = {name.lower(): name for name in frame}
    usual = [lower[name] for name in USUAL_NAMES[kind].split() if name in lower]
    if kind == "class":  # one of names goes before one of numbers
        usual.sort(key=lambda name: bool(pd.to_numeric(frame[name], errors="coerce").notna().all()))
    if not given and not usual and kind in ("image", "class"):
        raise InputError(
            f"{path}: no {kind} column under a usual name; it has {', '.join(frame)}; "
            f"name it: {kind}_column=..."
        )
    column = given or (usual[0] if usual else "")
    return frame[column] if column else pd.Series("", index=frame.index)


def _whole_numbers(values: pd.Series, path: Path) -> list[str]:
    """Read labels such as 1.0, which a table with gaps was saved with, as the integers they are."""
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.isna().any() or values.str.isdecimal().all():
        return list(values)
    for text in values[(numbers % 1 != 0) | (numbers < 0)]:
        raise InputError(
            f"{path}: {values.name}: expected names or integers from 0 as classes, got {text}; "
            "name the column of classes: class_column=..."
        )
    return list(numbers.astype("int64").astype(str))


def find_images(
    images: Iterable[str], root: Path, *, where: Path, way_out: str, leave_out: bool = False
) -> list[str]:
    """Find each image by its path below ``root``, its file name, or its name without extension.

    With ``leave_out`` images may be missing, but not all; the path is where one should be.
    """
    files, _ = sort_files(root)
    exact = set(files)
    by_name: dict[str, list[str]] = {}
    for file in files:
        name = file.rpartition("/")[2]
        for key in {name, name.rpartition(".")[0]}:
            by_name.setdefault(key, []).append(file)
    paths, missing = [], []
    for written in images:
        # Perhaps as Windows writes a path.
        image = written if written in exact else written.replace("\\", "/").removeprefix("./")
        found = [image] if image in exact else by_name.get(image, [])
        # Copies of ISIC 2019 drop this ending of some of its images.
        found = found or by_name.get(image.removesuffix("_downsampled"), [])
        if len(found) > 1:
            raise InputError(f"{where}: {image}: {len(found)} images below {root} match")
        if not found and not (os.path.isabs(written) and os.path.isfile(written)):
            missing.append(written)
        paths.append(os.path.join(root, found[0] if found else image))  # an absolute path is kept
    if missing and (not leave_out or len(missing) == len(paths)):
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        gone = f"{len(missing)} of {len(paths)} images are not below {root}: {some}"
        raise InputError(f"{where}: {gone}; {way_out}")
    return paths
