"""Folders of pictures to one table: a row a picture."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from fopro_lab.errors import InputError

SUFFIXES = frozenset(".jpg .jpeg .jpe .jfif .png .bmp .tif .tiff .webp .gif .ppm".split())
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def list_pictures(folder: Path | str) -> list[str]:
    """List the pictures below a folder; hidden files and other files are passed over.

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
        ...     list_pictures(folder)
        ['a.jpg', 'b.PNG']
    """
    return sort_files(folder)[0]


def sort_files(folder: Path | str) -> tuple[list[str], list[str]]:
    """List the pictures below a folder, and the other files, which are passed over.

    Args:
        folder: As of `list_pictures`; hidden files are in neither list.

    Returns:
        Sorted paths relative to ``folder`` of the pictures, and of the others.

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
                is_picture = os.path.splitext(name)[1].lower() in SUFFIXES
                (found if is_picture else others).append(prefix + name)
    return sorted(found), sorted(others)


def read_folders(root: Path) -> tuple[pd.DataFrame, tuple[str, ...], tuple[str, ...]]:
    """Read a folder per class, or train, val and test folders with a folder per class in each.

    Args:
        root: The folder above.

    Returns:
        Table with the columns image (path below ``root``), path, label, group (the picture
        itself), source (empty), split; the class names in alphabetical order; and the files that
        were passed over because their names are no pictures'.

    Raises:
        InputError: If it holds no pictures, pictures outside class folders, or one class only.

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
        raise InputError(f"{root}: expected pictures, found none ({_suffixes()})")
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
    """Number the classes of a list of pictures.

    Args:
        classes: Class of each picture, as written.
        where: File or folder, for the message.

    Returns:
        Number of each picture's class, and the names in the order of their numbers: integers in
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
    """Refuse a list that names a picture more than once.

    Args:
        images: As the file writes them.
        where: File, folder or data set, for the message.

    Raises:
        InputError: If one comes twice.

    Example:
        >>> refuse_twice(["a", "b", "a"], where="a.csv")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: a.csv: expected each picture once, got a twice; ...
    """
    repeated = [image for image, count in Counter(images).items() if count > 1]
    if repeated:
        more = f" and {len(repeated) - 1:,} more" if len(repeated) > 1 else ""
        raise InputError(
            f"{where}: expected each picture once, got {repeated[0]} twice{more}; "
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
