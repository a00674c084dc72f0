"""Read the cells of a table, or of a list of images, as text."""

import csv
import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fopro_lab.errors import InputError

TABLES = (".csv", ".tsv", ".tab", ".psv")
TEXTS = (".txt", ".dat", "")  # perhaps a table
SHEETS = (".xlsx", ".xls", ".ods", ".parquet", ".jsonl", ".feather")


def table_ending(file: str) -> str | None:
    """Return the ending of a file that may be a table, in lower case; None of any other."""
    ending = Path(file.lower().removesuffix(".gz")).suffix
    return ending if ending in (*TABLES, *TEXTS, *SHEETS) else None


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Read the lines of a table that are not empty, each with its number, as stripped texts.

    The file is UTF-8, or UTF-16 as spreadsheets write it, perhaps packed by gzip; separated by
    comma, semicolon, tab or bar, whichever the header has most of, else by spaces.
    """
    if table_ending(path.name) in SHEETS:
        raise InputError(f"{path}: a {path.suffix} file is not read here; save it as CSV UTF-8")
    # Not pandas.read_csv: it pads short lines and takes a first column for an index in silence.
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        if "\0" in text:
            raise UnicodeError
        header = next((line for line in text.splitlines() if line.strip()), "")
        unquoted = "".join(header.split('"')[::2])
        mark = max(",;\t|", key=unquoted.count)
        mark = mark if mark in unquoted or " " not in unquoted.strip() else " "
        lines = io.StringIO(text, newline="")
        reader = csv.reader(lines, delimiter=mark, strict=True, skipinitialspace=mark == " ")
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except UnicodeError:
        raise InputError(
            f"{path}: expected text in UTF-8; save a table as CSV UTF-8, or unpack an archive"
        ) from None
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read as CSV ({reason})") from None
    return [(line, row) for line, row in rows if any(row)]


def read_cells(path: Path, *, needed: Sequence[str] = ()) -> pd.DataFrame:
    """Read every cell of a table as stripped text, so that an id such as 0012 keeps its zeros.

    Empty lines and columns without a name are left out; ``needed`` columns must be there.
    """
    rows = read_rows(path)
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
    frame = pd.DataFrame([row for _, row in rows], columns=names)
    frame = frame.loc[:, [name != "" for name in names]]
    for name in needed:
        check_column(name, frame, path)
    return frame


def check_column(name: str, frame: pd.DataFrame, path: Path) -> None:
    """Refuse a name that no column of a table has."""
    if name not in frame:
        raise InputError(f"{path}: no column '{name}'; it has {', '.join(frame)}")
