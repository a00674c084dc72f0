"""The ledger: published numbers and ours of one protocol side by side, each with its origin."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import isfinite, isnan
from pathlib import Path

import pandas as pd

from fopro_lab.errors import InputError
from fopro_lab.evaluation.compare import HEADLINE
from fopro_lab.io import atomic_path

KEY = ("protocol_id", "method", "teacher", "student", "metric", "group")
PUBLISHED = ("published_value", "published_source")
OURS = ("ours", "ours_low", "ours_high", "seeds", "folds", "n", "commit", "date", "command")
COLUMNS = (
    *("protocol", "method", "teacher", "student", "metric", "group", *PUBLISHED),
    *("ours", "ours_low", "ours_high", "seeds", "folds", "n", "protocol_id"),
    *("commit", "date", "command"),
)
NUMBERS = ("published_value", "ours", "ours_low", "ours_high")
COUNTS = ("seeds", "folds", "n")
METHODS = ("ce", "bsm", "ekd", "fopro", "random")
TEACHERLESS = ("ce", "bsm")
METRICS = (*dict.fromkeys(metric for _, _, metric in HEADLINE.values()), "kappa", "accuracy")
GROUPS = ("all", "head", "medium", "tail")
SIGNED = ("mcc", "kappa")  # from -1; every other metric is a share in [0, 1]
_SOURCE = re.compile(r"(doi:|arXiv:|https://)\S+, \S.*")


def check_row(row: Mapping[str, str]) -> None:
    """Refuse a row that says what cannot be, or a number without its origin.

    Args:
        row: Text of every column. ``protocol`` (readable), ``method``, ``teacher`` and
            ``student`` (as a config names them), ``metric``, ``group`` ("all", or of a recall
            "head", "medium" or "tail"); ``published_value`` and ``published_source``, where it is
            stated; ``ours`` with its 95 % interval, numbers of ``seeds``, ``folds`` and ``n``
            test images of all classes, ``protocol_id`` (of runs), ``commit``, ``date`` and
            ``command``. Values are shares in [0, 1]; MCC and kappa may be negative.

    Raises:
        InputError: Naming the column, what was expected and what is there.

    Example:
        >>> check_row(dict.fromkeys(COLUMNS, ""))
        Traceback (most recent call last):
        fopro_lab.errors.InputError: protocol: expected a name, got nothing
    """
    for name in ("protocol", "student", "protocol_id"):
        if not row[name]:
            raise InputError(f"{name}: expected a name, got nothing")
    _check_known("method", row["method"], METHODS)
    _check_known("metric", row["metric"], METRICS)
    _check_known("group", row["group"], GROUPS)
    if (row["group"] != "all") != (row["metric"] == "recall"):
        raise InputError(f"group: a {row['metric']} is not of the group '{row['group']}'")
    if bool(row["teacher"]) == (row["method"] in TEACHERLESS):
        rule = "no teacher" if row["teacher"] else "a teacher"
        raise InputError(f"teacher: expected {rule} for {row['method']}, got '{row['teacher']}'")
    numbers = {name: _number(name, row[name], row["metric"]) for name in NUMBERS}
    if row["published_value"] and not _SOURCE.fullmatch(row["published_source"]):
        raise InputError(
            "published_source: expected where the value is stated, such as 'doi:10.1109/x, "
            f"Table II' (doi:, arXiv: or https://), got '{row['published_source']}'"
        )
    _check_ours(row, numbers)


def _check_ours(row: Mapping[str, str], numbers: Mapping[str, float]) -> None:
    """Refuse a number without origin, an origin without number, an interval without its value."""
    if not row["ours"]:
        more = [name for name in OURS if row[name]]
        if more:
            raise InputError(f"{more[0]}: expected nothing without a value of ours")
        return
    low, value, high = (numbers[name] for name in ("ours_low", "ours", "ours_high"))
    if isnan(low) != isnan(high):
        raise InputError("ours_low, ours_high: expected both or neither")
    if not isnan(low) and not low <= value <= high:
        raise InputError(f"ours: expected a value in its interval [{low}, {high}], got {value}")
    for name in COUNTS:
        if not row[name].isdecimal() or int(row[name]) < 1:
            raise InputError(f"{name}: expected 1 or more, got '{row[name]}'")
    if not re.fullmatch(r"[0-9a-f]{7,40}", row["commit"]):
        raise InputError(f"commit: expected 7 to 40 hexadecimal digits, got '{row['commit']}'")
    try:
        if len(row["date"]) != 10:
            raise ValueError
        date.fromisoformat(row["date"])
    except ValueError:
        raise InputError(f"date: expected YYYY-MM-DD, got '{row['date']}'") from None
    if not row["command"]:
        raise InputError("command: expected the one that makes the value again, got nothing")


def _check_known(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{name}: expected one of {', '.join(known)}, got '{value}'")


def _number(name: str, text: str, metric: str) -> float:
    """Read a share; NaN where the cell is empty."""
    if not text:
        return float("nan")
    lowest = -1.0 if metric in SIGNED else 0.0
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value) or not lowest <= value <= 1.0:
        raise InputError(f"{name}: expected a number from {lowest:g} to 1, got '{text}'")
    return value


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
            if isnan(value):  # a group without test images
                continue
            ends = [row[f"{column}_low"], row[f"{column}_high"]]
            low, high = ("" if isnan(end) else _text(end) for end in ends)
            ours = {"ours": _text(value), "ours_low": low, "ours_high": high}
            found.append((names | {"metric": metric, "group": group}, column, ours | counts | made))
    return found


def _text(value: float) -> str:
    """Write a share to a hundredth of a point; no number of test images tells more."""
    return f"{value + 0.0:.4f}".replace("-0.0000", "0.0000")
