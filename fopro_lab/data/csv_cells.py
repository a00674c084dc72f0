"""A CSV as people write it to a table of stripped texts."""

import csv
from pathlib import Path

import pandas as pd

from fopro_lab.errors import InputError

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
        raise InputError(f"{path}: expected a row per picture, found none")
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
