"""The same picture twice: by the bytes of its file, or by its decoded pixels."""

import hashlib
import os
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from fopro_lab.data import Pack
from fopro_lab.files import sha256_file


def same_content(packed: Pack) -> np.ndarray:
    """Number the contents: pictures of the same bytes or the same pixels get the same number.

    Bytes are compared by SHA-256, of those files alone that share their size with another. Pixels
    are compared as packed, so a file that was renamed, or saved anew without loss, is found too.

    Args:
        packed: The pictures.

    Returns:
        ``int64 (N,)``: the first row with the same content.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> dataset = open_dataset("phantom", pictures=24).subset([0, 1, 0])
        >>> same_content(pack(dataset, 16, progress=False)).tolist()
        [0, 1, 0]
    """
    pixels = first_of(hashlib.sha256(image.tobytes()).digest() for image in packed.images)
    files = first_of(_file_hashes(packed.dataset.table["path"].tolist()))
    # A file's first row stands for its pixels: two relations, joined, since equal bytes decode
    # to equal pixels and the packed pixels of one row are those of one file.
    return pixels[files]


def first_of(contents: Iterable[object]) -> np.ndarray:
    """Return, for each item, the place of the first item that equals it.

    Example:
        >>> first_of("abca").tolist()
        [0, 1, 2, 0]
    """
    places: dict[object, int] = {}
    return np.array([places.setdefault(item, place) for place, item in enumerate(contents)])


def copies_table(table: pd.DataFrame, *, content: np.ndarray, parts: np.ndarray) -> pd.DataFrame:
    """List every picture that has a copy.

    Args:
        table: Of the data set: image, label, group.
        content: Of `same_content`.
        parts: "train", "val", "test" or "" of each picture.

    Returns:
        Columns ``content``, ``image``, ``part``, ``label``, ``group``; a content's rows together.

    Example:
        >>> table = pd.DataFrame({"image": list("abc"), "label": 0, "group": list("abc")})
        >>> parts = np.array(["train", "train", "test"])
        >>> copies_table(table, content=np.array([0, 1, 0]), parts=parts)["image"].tolist()
        ['a', 'c']
    """
    listed = pd.DataFrame({"content": content, "part": parts})
    listed = pd.concat([listed, table[["image", "label", "group"]]], axis=1)
    twice = listed[listed["content"].duplicated(keep=False)]
    return twice.sort_values(["content", "image"], ignore_index=True)[
        ["content", "image", "part", "label", "group"]
    ]


def _file_hashes(paths: Sequence[str]) -> list[object]:
    """Return what tells a file's content apart; a size that occurs once needs no hash."""
    sizes = [os.stat(path).st_size if path else -1 for path in paths]
    counts = pd.Series(sizes).value_counts()
    return [
        sha256_file(path) if path and counts[size] > 1 else row
        for row, (path, size) in enumerate(zip(paths, sizes, strict=True))
    ]
