"""A CSV and its images to one table: a row an image."""

import csv
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fopro_lab.errors import InputError

SUFFIXES = frozenset(".jpg .jpeg .jpe .jfif .png .bmp .tif .tiff .webp .gif .ppm".split())
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def list_images(folder: Path | str) -> list[str]:
    """List the images below a folder; hidden files and other files are passed over.

    Args:
        folder: Where to look, at any depth; links to folders are followed, each folder once.

    Returns:
        Sorted paths relative to ``folder``, with forward slashes.

    Raises:
        InputError: If a folder may not be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.PNG", "a.jpg", ".hidden.jpg", "notes.txt"):
        ...         _ = (Path(folder) / name).write_bytes(b"")
        ...     list_images(folder)
        ['a.jpg', 'b.PNG']
    """
    return sort_files(folder)[0]


def sort_files(folder: Path | str) -> tuple[list[str], list[str]]:
    """List the images below a folder, and the other files, which are passed over.

    Args:
        folder: As of `list_images`; hidden files are in neither list.

    Returns:
        Sorted paths relative to ``folder`` of the images, and of the others.

    Raises:
        InputError: If a folder may not be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a.jfif", "b", "notes.txt"):
        ...         _ = (Path(folder) / name).write_bytes(b"")
        ...     sort_files(folder)
        (['a.jfif'], ['b', 'notes.txt'])
    """
    found: list[str] = []
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
                (found if is_image else others).append(prefix + name)
    return sorted(found), sorted(others)


def read_folders(root: Path) -> tuple[pd.DataFrame, tuple[str, ...], tuple[str, ...]]:
    """Read a folder per class, or train, val and test folders with a folder per class in each.

    Args:
        root: The folder above.

    Returns:
        Table with the columns image (path below ``root``), path, label, group (the image
        itself), source (empty), split; the class names in alphabetical order; and the files that
        were passed over because their names are no images'.

    Raises:
        InputError: If it holds no images, images outside class folders, or one class only.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("nevus/1.png", "melanoma/2.png"):
        ...         (Path(folder) / name).parent.mkdir()
        ...         _ = (Path(folder) / name).write_bytes(b"")
        ...     table, names, passed_over = read_folders(Path(folder))
        >>> names, table["label"].tolist()
        (('melanoma', 'nevus'), [0, 1])
    """
    images, others = sort_files(root)
    if not images:
        raise InputError(f"{root}: expected images, found none ({_suffixes()})")
    parts = [image.split("/") for image in images]
    tops = {part[0].lower() for part in parts}
    depth = 1 if "train" in {SPLIT_WORDS.get(top) for top in tops} else 0
    if depth and not tops <= SPLIT_WORDS.keys():
        strange = sorted(tops - SPLIT_WORDS.keys())[0]
        raise InputError(
            f"{root}: expected train, val and test folders only, found '{strange}' too"
        )
    for image, part in zip(images, parts, strict=True):
        if len(part) < depth + 2:
            raise InputError(f"{root}: expected a folder per class, found {image} outside of one")
    classes = [part[depth] for part in parts]
    splits = [SPLIT_WORDS[part[0].lower()] if depth else "" for part in parts]
    labels, names = number_classes(classes, where=str(root))
    start = os.path.join(root, "")
    table = pd.DataFrame(
        {
            "image": images,
            "path": [start + image for image in images],
            "label": labels,
            "group": images,
            "source": "",
            "split": splits,
        }
    )
    return table, names, tuple(others)


def number_classes(classes: list[str], *, where: str) -> tuple[list[int], tuple[str, ...]]:
    """Number the classes of a list of images.

    Args:
        classes: Class of each image, as written.
        where: File or folder, for the message.

    Returns:
        Number of each image's class, and the names in the order of their numbers: integers in
        their order, else alphabetical.

    Raises:
        InputError: If there is one class alone, two names are one but for case, space or leading
            zeros, or integers have a gap.

    Example:
        >>> number_classes(["nv", "mel", "nv"], where="a.csv")
        ([1, 0, 1], ('mel', 'nv'))
    """
    names = sorted(set(classes))
    _refuse_alike(names, where)
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
        first, last = int(names[0]), int(names[-1])
        missing = sorted(set(range(first, min(last, first + len(names)))) - set(map(int, names)))
        if missing:
            got = ", ".join(names[:10])
            raise InputError(
                f"{where}: labels: expected integers without a gap, got {got} "
                f"and no {missing[0]}; renumber them or use a column of names"
            )
    if len(names) < 2:
        raise InputError(f"{where}: expected two classes or more, found '{names[0]}' alone")
    number = {name: label for label, name in enumerate(names)}
    return [number[name] for name in classes], tuple(names)


def refuse_twice(images: Iterable[str], *, where: Path | str) -> None:
    """Refuse a list that names an image more than once.

    Args:
        images: As the file writes them.
        where: File, folder or data set, for the message.

    Raises:
        InputError: If one comes twice.

    Example:
        >>> refuse_twice(["a", "b", "a"], where="a.csv")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: a.csv: expected each image once, got a twice; ...
    """
    repeated = [image for image, count in Counter(images).items() if count > 1]
    if repeated:
        more = f" and {len(repeated) - 1:,} more" if len(repeated) > 1 else ""
        raise InputError(
            f"{where}: expected each image once, got {repeated[0]} twice{more}; "
            "remove the repeated ones"
        )


def _refuse_alike(names: list[str], where: str) -> None:
    """Refuse names that differ in case, space, accents' encoding or leading zeros alone."""
    first: dict[str | int, str] = {}
    for name in names:
        plain = unicodedata.normalize("NFC", name).strip().casefold()
        other = first.setdefault(int(plain) if plain.isdecimal() else plain, name)
        if other != name:
            raise InputError(
                f"{where}: classes '{other}' and '{name}' look like one and the same; write them "
                "alike, or give them names that differ"
            )


def _suffixes() -> str:
    return ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))


SEPARATORS = ",;\t"
# How tables write an empty cell, and how people write that a group or a source is not known: in
# lower case, as a class may well be called 'none' or 'unknown'.
EMPTY = frozenset({"", "nan", "na", "n/a", "<na>", "null", "#n/a"})
NOT_KNOWN = EMPTY | frozenset(
    {"none", "unknown", "not known", "unspecified", "missing", "not available", "n.a.", "-", "--"}
    | {"?", ".", "nil", "nat", "undefined"}
)


def read_cells(path: Path) -> pd.DataFrame:
    r"""Read every cell of a CSV as stripped text, so that an id such as 0012 keeps its zeros.

    Args:
        path: Separated by comma, semicolon or tab, whichever the header has most of; UTF-8, with
            or without a byte-order mark; any line ends; quoted cells; empty lines are passed over.

    Returns:
        A row a line and a column a name; columns without a name are left out.

    Raises:
        InputError: If the file cannot be read, a line has more or fewer cells than the header, a
            quote is not closed, two columns have one name, or there is no row.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.csv"
        ...     _ = path.write_bytes(b"\xef\xbb\xbfimage; dx\r\n001;nv \r\n\r\n")
        ...     read_cells(path).to_dict("records")
        [{'image': '001', 'dx': 'nv'}]
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            header = _first_line(stream.read(1 << 16))
            stream.seek(0)
            reader = csv.reader(stream, delimiter=max(SEPARATORS, key=header.count), strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except UnicodeDecodeError:
        raise InputError(
            f"{path}: cannot be read as CSV (it is not UTF-8); save it as CSV UTF-8"
        ) from None
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read as CSV ({reason})") from None
    rows = [(line, row) for line, row in rows if any(row)]
    if not rows:
        raise InputError(f"{path}: cannot be read as CSV (it is empty)")
    names = rows[0][1]
    _refuse_repeated(names, path)
    cells = [_fit(row, len(names), line=line, path=path) for line, row in rows[1:]]
    if not cells:
        raise InputError(f"{path}: expected a row per image, found none")
    frame = pd.DataFrame(cells, columns=pd.Index(names, dtype=object), dtype=object)
    return frame.loc[:, [name != "" for name in names]]


def _first_line(text: str) -> str:
    """Return the first line with something on it, without what stands in quotes."""
    lines = [line for line in text.lstrip("\ufeff").splitlines() if line.strip()]
    return "".join(lines[0].split('"')[::2]) if lines else ""


def _refuse_repeated(names: list[str], path: Path) -> None:
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise InputError(f"{path}: expected columns of different names, got '{twice[0]}' twice")


def _fit(row: list[str], count: int, *, line: int, path: Path) -> list[str]:
    """Pass over empty cells at the end of a line, which spreadsheets like to write."""
    if len(row) > count and not any(row[count:]):
        return row[:count]
    if len(row) != count:
        raise InputError(
            f"{path}: line {line}: expected {count} cells as in the header, got {len(row)}"
        )
    return row


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


def read_csv_images(
    csv_path: Path, *, root: Path, columns: CsvColumns, leave_out: bool = False
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    r"""Read a CSV and find its images below a folder.

    Args:
        csv_path: Separated by comma, semicolon or tab; a row an image.
        root: Folder of the images, at any depth; names with or without extension.
        columns: Names of the columns.
        leave_out: Keep rows whose image is missing, with the path where it should be: packing
            leaves them out and says so.

    Returns:
        The table of `read_folders` and the class names: integers in their order, else
        alphabetical. An image without a group is its own.

    Raises:
        InputError: If a column, an image or a label is missing, an image comes twice, or
            integer labels have a gap.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("1.png", "2.png"):
        ...         _ = (Path(folder) / name).write_bytes(b"")
        ...     _ = (Path(folder) / "a.csv").write_text("image,dx\n1,nv\n2,mel\n")
        ...     where = Path(folder)
        ...     table, names = read_csv_images(where / "a.csv", root=where, columns=CsvColumns())
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
    """Empty the cells that say that nothing is known: they are no name that images share."""
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
    """Find each image by its path below ``root``, its file name, or its name without suffix."""
    files = list_images(root)
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
            raise InputError(f"{csv_path}: {image}: {names[image]} images below {root} match")
        elif os.path.isabs(written) and os.path.isfile(written):
            paths.append(written)
        else:
            missing.append(written)
            paths.append(start + image)
    if missing and (not leave_out or len(missing) == len(images)):
        some = ", ".join(missing[:3])
        raise InputError(
            f"{csv_path}: {len(missing)} of {len(images)} images are not below {root}: {some}"
            f"{', ...' if len(missing) > 3 else ''}; the CSV belongs above or beside its images"
        )
    return paths
