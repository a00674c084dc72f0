"""The ledger: published numbers and ours of one protocol side by side, each with its origin."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path

import pandas as pd

from fopro_lab.errors import InputError
from fopro_lab.evaluation.comparisons import HEADLINE
from fopro_lab.evaluation.ledger_rows import (
    COLUMNS,
    COUNTS,
    KEY,
    NUMBERS,
    TEACHERLESS,
    check_row,
)
from fopro_lab.files import atomic_path

ADDED = ("balanced_accuracy", "head", "medium", "tail")  # what a row is made for by itself


@dataclass(frozen=True)
class Origin:
    """What `headline.csv` does not say of itself.

    Attributes:
        commit: Of the code that trained, 7 to 40 hexadecimal digits.
        date: Of the runs, ``YYYY-MM-DD``.
        command: That makes them again.
        teacher: As the config names it; rows of methods without a teacher leave it out.
        student: As the config names it.
        protocol: Readable name of the protocol, for rows that are new; empty takes its id.

    Example:
        >>> Origin("5e7ef27", "2026-11-23", "fopro report a.yaml", "builtin", "small").protocol
        ''
    """

    commit: str
    date: str
    command: str
    teacher: str
    student: str
    protocol: str = ""


def read_ledger(path: Path | str) -> pd.DataFrame:
    """Read and check a ledger.

    Args:
        path: CSV with the columns of `check_row`; an empty cell is not known, never a zero.

    Returns:
        A row for each number that someone would compare: values and limits as float, NaN where
        empty, counts as nullable integers, all else as text.

    Raises:
        InputError: If a column is missing or more, a cell has no value of its kind, a metric,
            group or method is unknown, an interval does not hold its value, a published value
            has no source, one of ours has no origin, or two rows are of the same number.

    Example:
        >>> read_ledger("nowhere.csv")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.csv: no such file
    """
    cells = _read_cells(path)
    for line, row in enumerate(cells.to_dict("records"), start=2):
        try:
            check_row({str(name): str(cell) for name, cell in row.items()})
        except InputError as error:
            raise InputError(f"{path}: line {line}: {error}") from None
    twice = cells.duplicated(list(KEY))
    if twice.any():
        line = int(twice.to_numpy().argmax()) + 2
        raise InputError(f"{path}: line {line}: a row of this number stands above; keep one")
    table = cells.copy()
    for name in (*NUMBERS, *COUNTS):
        table[name] = pd.to_numeric(table[name].replace("", None))
    return table.astype({name: float for name in NUMBERS} | {name: "Int64" for name in COUNTS})


def fill_ledger(path: Path | str, headline: Path | str, *, origin: Origin) -> int:
    """Write the numbers of a report into the ledger.

    A row is of one protocol id, method, teacher, student, metric and group. Rows that are there
    are filled, with any number of the headline that they ask for; of a method that has none,
    balanced accuracy and the three groups are added. A later run replaces an earlier one. What is
    published is never touched. The file is replaced as a whole or not at all.

    Args:
        path: The ledger.
        headline: ``headline.csv`` of notebook 05.
        origin: Commit, date, command, teacher and student of the runs.

    Returns:
        How many rows were filled or added.

    Raises:
        InputError: If the ledger or the headline is wrong, or the rows would be; then the ledger
            stays as it is.
        WorkError: If the file may not be written.

    Example:
        >>> fill_ledger("nowhere.csv", "headline.csv",
        ...             origin=Origin("5e7ef27", "2026-11-23", "fopro report a.yaml", "", "small"))
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.csv: no such file
    """
    read_ledger(path)
    rows: list[dict[str, str]] = [
        {str(name): str(cell) for name, cell in row.items()}
        for row in _read_cells(path).to_dict("records")
    ]
    place = {tuple(row[name] for name in KEY): row for row in rows}
    filled = 0
    for found, column, ours in _measured(headline, origin):
        key = tuple(found[name] for name in KEY)
        if key not in place:
            if column not in ADDED:
                continue
            place[key] = dict.fromkeys(COLUMNS, "") | found
            rows.append(place[key])
        place[key] |= ours
        filled += 1
    with atomic_path(path) as temporary:
        pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(temporary, index=False)
        try:
            read_ledger(temporary)
        except InputError as error:  # speaks of a file that is gone by now
            raise InputError(str(error).replace(str(temporary), f"{path}, filled")) from None
    return filled


def ledger_lines(table: pd.DataFrame) -> list[str]:
    r"""Lay a ledger out for people, a line a number, protocols one after another.

    Args:
        table: From `read_ledger`.

    Returns:
        Lines; a dash is a cell that is not known.

    Example:
        >>> row = dict.fromkeys(COLUMNS, "") | {"protocol": "A", "method": "bsm", "group": "tail",
        ...       "metric": "recall", "student": "small"}
        >>> numbers = dict.fromkeys(NUMBERS, float("nan")) | dict.fromkeys(COUNTS, pd.NA)
        >>> print(*ledger_lines(pd.DataFrame([row | numbers])), sep="\n")
        A
          bsm small tail recall published - ours -
    """
    lines: list[str] = []
    for protocol, rows in table.groupby("protocol", sort=False):
        lines.append(str(protocol))
        for row in rows.to_dict("records"):
            who = f"{row['teacher']} to {row['student']}" if row["teacher"] else row["student"]
            what = row["metric"] if row["group"] == "all" else f"{row['group']} {row['metric']}"
            published = "-" if isnan(row["published_value"]) else f"{row['published_value']:.3f}"
            lines.append(
                f"  {row['method']:<7} {who:<45} {what:<22} published {published}  {_ours(row)}"
            )
    return lines


def _ours(row: Mapping) -> str:
    if isnan(row["ours"]):
        return "ours -"
    known = not isnan(row["ours_low"])
    interval = f" [{row['ours_low']:.3f}, {row['ours_high']:.3f}]" if known else " (no interval)"
    counts = f"seeds {row['seeds']}, folds {row['folds']}, n {row['n']}"
    return f"ours {row['ours']:.3f}{interval}  {counts}, {row['commit']} {row['date']}"


def _read_cells(path: Path | str) -> pd.DataFrame:
    """Read every cell as text, so that what is not touched is written back as it was."""
    try:
        cells = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise InputError(f"{path}: cannot be read as CSV ({error})") from None
    if tuple(cells.columns) != COLUMNS:
        raise InputError(
            f"{path}: expected the columns {', '.join(COLUMNS)}, got {', '.join(cells.columns)}"
        )
    return cells


def _measured(
    headline: Path | str, origin: Origin
) -> list[tuple[dict[str, str], str, dict[str, str]]]:
    """Return of each number of a headline: the row's names, its column, and our cells."""
    try:
        table = pd.read_csv(headline, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise InputError(f"{headline}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{headline}: cannot be read as CSV ({error})") from None
    needed = ["protocol", "method", "seeds", "n"]
    needed += [f"{name}{end}" for name in ADDED for end in ("", "_low", "_high")]
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise InputError(f"{headline}: expected notebook 05's headline.csv, found no {missing[0]}")
    found = []
    for row in table.to_dict("records"):
        names = {
            "protocol": origin.protocol or str(row["protocol"]),
            "protocol_id": str(row["protocol"]),
            "method": str(row["method"]),
            "teacher": "" if row["method"] in TEACHERLESS else origin.teacher,
            "student": origin.student,
        }
        counts = {"seeds": str(row["seeds"]), "folds": str(row.get("folds", 1)), "n": str(row["n"])}
        made = {"commit": origin.commit, "date": origin.date, "command": origin.command}
        for column, (_, group, metric) in HEADLINE.items():
            value = float(row.get(column, float("nan")))
            if isnan(value):  # a group without test pictures
                continue
            ends = [row[f"{column}_low"], row[f"{column}_high"]]
            low, high = ("" if isnan(end) else _text(end) for end in ends)
            ours = {"ours": _text(value), "ours_low": low, "ours_high": high}
            found.append((names | {"metric": metric, "group": group}, column, ours | counts | made))
    return found


def _text(value: float) -> str:
    """Write a share to a hundredth of a point; no number of test pictures tells more."""
    return f"{value + 0.0:.4f}".replace("-0.0000", "0.0000")
