"""What a row of the ledger may say: its columns, and how each cell is checked."""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from math import isfinite, isnan

from fopro_lab.errors import InputError
from fopro_lab.evaluation.comparisons import HEADLINE

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
            test pictures of all classes, ``protocol_id`` (of runs), ``commit``, ``date`` and
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
