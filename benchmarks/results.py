"""A benchmark's tables with the machine they come from: one JSON file, and text to read."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.machine import device_kind, machine_facts
from fopro_lab.io import write_json


def write_results(
    name: str, tables: dict[str, pd.DataFrame], *, out: Path, facts: dict[str, Any] | None = None
) -> Path:
    """Write tables and machine into ``NAME-KIND-DATE.json``.

    Args:
        name: Of the benchmark.
        tables: By name.
        out: Folder.
        facts: Of `machine_facts`; None asks for them.

    Returns:
        Path of the file.

    Raises:
        WorkError: If the disk is full or may not be written.

    Example:
        >>> import tempfile
        >>> facts = {"gpu": "", "cores": 2, "date": "2026-01-31"}
        >>> with tempfile.TemporaryDirectory() as place:
        ...     write_results("data", {}, out=Path(place), facts=facts).name
        'data-cpu2-2026-01-31.json'
    """
    facts = facts or machine_facts()
    path = out / f"{name}-{device_kind(facts)}-{facts['date']}.json"
    # By pandas, which writes a missing number as null.
    rows = {key: json.loads(table.to_json(orient="records")) for key, table in tables.items()}
    write_json(path, {"bench": name, "machine": facts, "tables": rows})
    return path


def as_text(table: pd.DataFrame) -> str:
    """Lay a table out for a terminal, numbers to four digits, an empty cell where none is known.

    Example:
        >>> print(as_text(pd.DataFrame({"variant": ["a"], "ratio": [1.23456], "goal": [None]})))
        variant  ratio goal
              a  1.235
    """
    shown = table.astype(object).where(table.notna(), "")
    return str(shown.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
