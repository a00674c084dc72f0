"""What a report's index shows, as data beside it: every table as CSV and as parquet."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from fopro_lab.files import atomic_path
from fopro_lab.lab.filters import chosen_parameters
from fopro_lab.lab.outcomes import NodeReport

TWINS = "tables"


def write_both(table: pd.DataFrame, path: Path) -> list[Path]:
    """Write a table as CSV and as parquet.

    Args:
        table: The table.
        path: Where, without an ending.

    Returns:
        Both paths.

    Raises:
        WorkError: If the disk is full or may not be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [p.name for p in write_both(pd.DataFrame({"n": [1]}), Path(folder) / "counts")]
        ['counts.csv', 'counts.parquet']
    """
    csv, parquet = path.with_name(f"{path.name}.csv"), path.with_name(f"{path.name}.parquet")
    with atomic_path(csv) as temporary:
        table.to_csv(temporary, index=False)
    with atomic_path(parquet) as temporary:
        _storable(table).to_parquet(temporary, index=False)
    return [csv, parquet]


def nodes_table(nodes: Sequence[NodeReport]) -> pd.DataFrame:
    """Lay the nodes of a report out as a table, a column a parameter.

    Args:
        nodes: Of the report.

    Returns:
        Columns ``name``, ``entry``, ``state``, ``seconds`` and what else is known of a node, then
        ``set_NAME`` for each parameter, as text, empty where the notebook has none of that name.
    """
    lines = []
    for node in nodes:
        known = {key: value for key, value in asdict(node).items() if key != "parameters"}
        given = chosen_parameters(node.parameters)
        lines.append(known | {f"set_{name}": value for name, value in given.items()})
    table = pd.DataFrame(lines)
    names = [str(name) for name in table if str(name).startswith("set_")]
    return table.fillna(dict.fromkeys(names, ""))


def headlines_table(nodes: Sequence[NodeReport], *, out: Path) -> pd.DataFrame:
    """Put the headlines of all nodes below each other, under the name of their node.

    Args:
        nodes: Those that ended well.
        out: Folder of the report.

    Returns:
        The table; no column where no node wrote a headline.
    """
    tables = {node.name: read_headline(node, out=out) for node in nodes}
    parts = [table.assign(node=name) for name, table in tables.items() if table is not None]
    if not parts:
        return pd.DataFrame()
    table = pd.concat(parts, ignore_index=True)
    return table[["node", *(name for name in table if name != "node")]]


def read_headline(node: NodeReport, *, out: Path) -> pd.DataFrame | None:
    """Read the headline of a node; None if it wrote none, or a file that is no table."""
    try:
        return pd.read_csv(out / node.folder / "headline.csv")
    except (ValueError, OSError):  # a notebook may write what it likes into its folder
        return None


def write_tables(nodes: Sequence[NodeReport], *, out: Path) -> None:
    """Write ``nodes`` and ``headline`` beside the index, and the missing twin of each node's table.

    A notebook writes CSV or parquet; the other form lies in ``tables/NODE``, and is not written
    again while its source has not changed.

    Args:
        nodes: Of the report.
        out: Its folder.

    Raises:
        WorkError: If the disk is full or may not be written.
    """
    well = [node for node in nodes if node.state in ("done", "kept")]
    write_both(nodes_table(nodes), out / "nodes")
    headlines = headlines_table(well, out=out)
    if len(headlines):
        write_both(headlines, out / "headline")
    for node in well:
        for source in table_files(out / node.folder):
            _write_twin(source, twin_of(source, node.name, out=out))


def table_files(folder: Path) -> list[Path]:
    """List the tables that a notebook left in its folder, each once."""
    csv, parquet = sorted(folder.glob("*.csv")), sorted(folder.glob("*.parquet"))
    return [*csv, *(path for path in parquet if path.with_suffix(".csv") not in csv)]


def twin_of(source: Path, node: str, *, out: Path) -> Path:
    """Name the file that holds a node's table in the other format: its own, or one in ``tables``.

    Example:
        >>> twin_of(Path("out/tail/scores.csv"), "tail", out=Path("out")).as_posix()
        'out/tables/tail/scores.parquet'
    """
    other = source.with_suffix(".parquet" if source.suffix == ".csv" else ".csv")
    return other if other.is_file() else out / TWINS / node / other.name


def _write_twin(source: Path, twin: Path) -> None:
    if twin.parent == source.parent:
        return
    if twin.is_file() and twin.stat().st_mtime_ns >= source.stat().st_mtime_ns:
        return
    try:
        table = pd.read_csv(source) if source.suffix == ".csv" else pd.read_parquet(source)
    except (ValueError, OSError):
        return  # not a table: a notebook may write what it likes into its folder
    with atomic_path(twin) as temporary:
        if twin.suffix == ".parquet":
            _storable(table).to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False)


def _storable(table: pd.DataFrame) -> pd.DataFrame:
    """Turn columns of mixed kinds into text: parquet holds one kind a column."""
    mixed = {
        name: str
        for name in table
        if pd.api.types.infer_dtype(table[name], skipna=True).startswith("mixed")
    }
    return table.astype(mixed) if mixed else table
