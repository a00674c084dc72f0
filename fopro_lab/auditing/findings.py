"""What an examination found: a verdict a line, and the tables behind it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from fopro_lab.files import atomic_path, write_json

Level = Literal["ok", "note", "warn", "fail"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warn", "fail")


class Finding(NamedTuple):
    """One question to the data and its answer.

    Attributes:
        level: ``ok``; ``note``: know it; ``warn``: results hold, but weaker than they look;
            ``fail``: pictures cannot be used, or results on this split would be wrong.
        what: The question, one word or two.
        number: The number that decides, or None.
        verdict: One line.
    """

    level: Level
    what: str
    number: float | None
    verdict: str


@dataclass(frozen=True, eq=False)
class Findings:
    """All answers, the facts about the data set and the tables behind them.

    Attributes:
        facts: Names and values: pictures, groups, protocol, ...
        findings: In the order of the questions.
        tables: By name; each can be written as a CSV.

    Example:
        >>> found = Findings({}, (Finding("warn", "power", 0.3, "few"),), {})
        >>> found.worst, found.lines()
        ('warn', ['warn  power  few'])
    """

    facts: dict[str, Any]
    findings: tuple[Finding, ...]
    tables: dict[str, pd.DataFrame]

    @property
    def worst(self) -> Level:
        """The gravest level."""
        return max((finding.level for finding in self.findings), key=LEVELS.index, default="ok")

    def table(self) -> pd.DataFrame:
        """Return the findings, a row each: level, what, number, verdict."""
        return pd.DataFrame(self.findings, columns=list(Finding._fields))

    def lines(self) -> list[str]:
        """Return a line a finding, level first, aligned."""
        width = max((len(finding.what) for finding in self.findings), default=0)
        return [f"{each.level:<4}  {each.what:<{width}}  {each.verdict}" for each in self.findings]

    def count_lines(self) -> list[str]:
        """Return the pictures of each class and part, aligned."""
        counts = self.tables["counts"].pivot(index="class", columns="split", values="n")
        order = self.tables["counts"]["class"].drop_duplicates()
        lines = [f"{'class':<28}{'train':>8}{'val':>8}{'test':>8}"]
        for name, row in counts.loc[order].iterrows():
            lines.append(f"{str(name)[:27]:<28}{row['train']:>8}{row['val']:>8}{row['test']:>8}")
        return lines

    def unreadable_lines(self) -> list[str]:
        """Return every picture that cannot be read, and why."""
        return [f"unreadable: {reason}" for reason in self.tables["unreadable"]["reason"]]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON; what is undefined is None.

        Example:
            >>> Findings({"pictures": 3}, (), {"a": pd.DataFrame({"n": [1]})}).as_dict()
            {'pictures': 3, 'worst': 'ok', 'findings': [], 'tables': {'a': [{'n': 1}]}}
        """
        tables = {
            name: json.loads(table.to_json(orient="records")) for name, table in self.tables.items()
        }
        findings = [finding._asdict() for finding in self.findings]
        return {**self.facts, "worst": self.worst, "findings": findings, "tables": tables}

    def write(self, folder: Path | str) -> Path:
        """Write ``findings.json``, ``findings.csv`` and a CSV a table.

        Args:
            folder: Where to; made if missing.

        Returns:
            The folder.

        Raises:
            WorkError: If the disk is full or may not be written.
        """
        folder = Path(folder)
        write_json(
            folder / "findings.json", {k: v for k, v in self.as_dict().items() if k != "tables"}
        )
        for name, table in {"findings": self.table(), **self.tables}.items():
            with atomic_path(folder / f"{name}.csv") as temporary:
                table.to_csv(temporary, index=False)
        return folder
