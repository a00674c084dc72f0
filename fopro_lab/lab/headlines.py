"""A table of numbers for a page: values with their intervals joined, drawn on a common scale."""

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

_BAR = 136  # width of an interval's drawing, in its own units
_MARGIN = 4
_INTERVALS_SHOWN = 5  # what a laptop's screen holds; the file has them all


def headline(file: Path | str, *, form: str = "{:.3f}") -> dict[str, Any]:
    r"""Prepare a table for the page: columns ``x``, ``x_low``, ``x_high`` become one.

    The first five of those are shown; the protocol is said beside the table if it is one.

    Args:
        file: CSV with a row a method.
        form: How a number with decimals is written.

    Returns:
        ``columns`` (title, number), ``rows`` of cells (text, interval, and the place of the dot
        the bar's ends, and zero where it lies between, on the column's common scale) and
        ``protocol``.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as csv:
        ...     _ = csv.write("method,tail,tail_low,tail_high\nekd,0.5,0.4,0.6\n")
        ...     csv.flush()
        ...     table = headline(csv.name)
        >>> [cell["text"] for cell in table["rows"][0]], table["rows"][0][1]["interval"]
        (['ekd', '0.500'], '[0.400, 0.600]')
    """
    table = pd.read_csv(file)
    ends = {f"{name}{end}" for name in table for end in ("_low", "_high")} & set(table)
    protocols = list(table["protocol"].unique()) if "protocol" in table else []
    joined = [name for name in table if f"{name}_low" in ends][:_INTERVALS_SHOWN]
    names = [
        name
        for name in table
        if (name in joined or f"{name}_low" not in ends)
        and name not in ends
        and not (name == "protocol" and len(protocols) == 1)
    ]
    columns = [
        {
            "title": str(name).replace("_", " "),
            "number": pd.api.types.is_numeric_dtype(table[name]) and f"{name}_low" not in ends,
        }
        for name in names
    ]
    cells = [_column(table, name, form) for name in names]
    rows = [list(row) for row in zip(*cells, strict=True)]
    return {
        "columns": columns,
        "rows": rows,
        "protocol": protocols[0] if len(protocols) == 1 else "",
    }


def _column(table: pd.DataFrame, name: str, form: str) -> list[dict[str, Any]]:
    """The cells of one column, with its interval if there is one."""
    number = pd.api.types.is_numeric_dtype(table[name])
    plain = {"number": number, "interval": "", "dot": None, "low": None, "high": None, "zero": None}
    if not {f"{name}_low", f"{name}_high"} <= set(table):
        return [{**plain, "text": _text(value, form)} for value in table[name]]
    low, high = table[f"{name}_low"], table[f"{name}_high"]
    left, right = low.min(), high.max()

    def place(value: float) -> float:
        share = (value - left) / (right - left) if right > left else 0.5
        return round(_MARGIN + share * (_BAR - 2 * _MARGIN), 1)

    return [
        {
            "number": True,
            "text": _text(value, form),
            "interval": f"[{_text(a, form)}, {_text(b, form)}]",
            "dot": place(value),
            "low": place(a),
            "high": place(b),
            "zero": place(0) if left < 0 < right else None,
        }
        if pd.notna([value, a, b]).all()
        else {**plain, "text": _text(value, form), "interval": "no interval", "number": False}
        for value, a, b in zip(table[name], low, high, strict=True)
    ]


def _text(value: Any, form: str) -> str:
    if pd.isna(value):
        return "n/a"
    if not isinstance(value, float):
        return str(value)
    told = form.format(value)
    return told if told.strip("+-0.") else form.format(0.0).replace("+", "")  # no minus zero


def as_headline(table: pd.DataFrame, *, form: str = "{:.3f}") -> dict[str, Any]:
    """Prepare a table in memory for a page; see `headline`.

    Args:
        table: A row a method.
        form: How a number with decimals is written.

    Example:
        >>> as_headline(pd.DataFrame({"method": ["ekd"], "n": [3]}))["rows"][0][1]["text"]
        '3'
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        table.to_csv(path, index=False)
        return headline(path, form=form)
