"""What was done is not done again: the key of a node's result, and the record beside it."""

import hashlib
import json
import os
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fopro_lab.files import write_json
from fopro_lab.lab.nodes import Node
from fopro_lab.lab.parameters import read_cells
from fopro_lab.lab.states import files_states, package_hash


@dataclass(frozen=True)
class Record:
    """What a node's last execution took.

    Attributes:
        seconds: Of wall time.
        memory: Peak of its processes, bytes; 0 where it is not known.
        attempts: How often its kernel was started.

    Example:
        >>> Record(2.5).attempts
        1
    """

    seconds: float
    memory: int = 0
    attempts: int = 1


def node_key(
    node: Node, *, before: Mapping[str, str], files: MutableMapping[str, str] | None = None
) -> str:
    """Hash all that a node's result depends on.

    Args:
        node: The node.
        before: Key of every node that it waits for.
        files: States of paths that are known already, and are added here: many nodes read one
            data set, and listing it takes a while.

    Returns:
        64 hexadecimal digits over the notebook's cells, the parameters, the package's source, the
        files that parameters point to (names, sizes, times), and the keys before.
    """
    files = {} if files is None else files
    parts = {
        "cells": [(cell.get("cell_type"), cell["source"]) for cell in read_cells(node.notebook)],
        "parameters": node.parameters,
        "package": package_hash(),
        "files": files_states(node.parameters, known=files),
        "before": {name: before[name] for name in node.after},
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def write_record(node: Node, *, folder: Path, key: str, took: Record) -> None:
    """Note beside a node's outputs that it is done.

    Args:
        node: The node.
        folder: Its ``out_dir``; the record holds as long as every file in it is there, and the
            manifest in its ``run_dir``.
        key: The node's key.
        took: Time and memory.
    """
    outputs = [p for p in folder.rglob("*") if p.is_file() and p.name != ".done.json"]
    manifest = Path(node.places.get("run_dir", "")) / "manifest.json"
    outputs += [manifest] if manifest.is_file() else []
    names = sorted(os.path.relpath(path, folder) for path in outputs)
    write_json(_record_path(folder), {"key": key, **asdict(took), "outputs": names})


def read_record(*, folder: Path, key: str) -> Record | None:
    """Look up whether a node with this key is done and all that it wrote is still there.

    Args:
        folder: The node's ``out_dir``.
        key: The node's key now.

    Returns:
        What it took, or None if it is to be executed.

    Example:
        >>> read_record(folder=Path("nowhere"), key="0" * 64) is None
        True
    """
    try:
        record: dict[str, Any] = json.loads(_record_path(folder).read_text(encoding="utf-8"))
        there = all((folder / path).exists() for path in record["outputs"])
        return _took(record) if there and record["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def last_record(*, folder: Path) -> Record | None:
    """Look up what a node took when it was last done, whatever has changed since.

    Args:
        folder: The node's ``out_dir``.

    Returns:
        Time and memory, or None without a record.

    Example:
        >>> last_record(folder=Path("nowhere")) is None
        True
    """
    try:
        return _took(json.loads(_record_path(folder).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _took(record: Mapping[str, Any]) -> Record:
    memory, attempts = record.get("memory", 0), record.get("attempts", 1)
    return Record(float(record["seconds"]), int(memory), int(attempts))


def forget_record(*, folder: Path) -> None:
    """Remove a record and the files that it lists, so that no old figure passes for a new one.

    Only files below ``folder`` that the last execution wrote are removed.

    Args:
        folder: The node's ``out_dir``.

    Example:
        >>> forget_record(folder=Path("nowhere"))
    """
    try:
        names = json.loads(_record_path(folder).read_text(encoding="utf-8"))["outputs"]
    except (OSError, ValueError, KeyError, TypeError):
        names = []
    for name in names:
        if not name.startswith(os.pardir):
            (folder / name).unlink(missing_ok=True)
    _record_path(folder).unlink(missing_ok=True)


def _record_path(folder: Path) -> Path:
    return folder / ".done.json"
