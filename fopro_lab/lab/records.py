"""What was done is not done again: the key of a node's result, and the record beside it."""

import hashlib
import json
import os
from collections.abc import Mapping, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any

import fopro_lab
from fopro_lab.files import write_json
from fopro_lab.lab.nodes import Node
from fopro_lab.lab.parameters import read_cells

_RUNNER = (
    "batch",
    "execute",
    "index",
    "nodes",
    "pages",
    "parameters",
    "plans",
    "records",
    "reports",
)


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
    texts = {key: value for key, value in node.parameters.items() if isinstance(value, str)}
    for value in texts.values():
        if value not in files:
            files[value] = files_state(value)
    parts = {
        "cells": [(cell.get("cell_type"), cell["source"]) for cell in read_cells(node.notebook)],
        "parameters": node.parameters,
        "package": _package_hash(),
        "files": {key: files[value] for key, value in texts.items()},
        "before": {name: before[name] for name in node.after},
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _package_hash() -> str:
    """Hash the source of all that a notebook can import: not the runner, not the door."""
    root = Path(fopro_lab.__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.safetensors")]):
        name = path.relative_to(root).as_posix()
        if name != "cli.py" and not (path.parent.name == "lab" and path.stem in _RUNNER):
            digest.update(name.encode() + path.read_bytes())
    return digest.hexdigest()


def files_state(value: str) -> str:
    """Return a hash of the names, sizes and times below a path; empty if the text is no path.

    Args:
        value: A parameter. Only a text with a separator counts as a path, so that a method's name
            never means a folder that happens to lie here.

    Example:
        >>> files_state("ekd"), files_state("../no/such/folder")
        ('', '')
    """
    path = Path(value).expanduser()
    if os.sep not in value or not path.exists():
        return ""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    states = [(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(repr(states).encode()).hexdigest()


def write_record(node: Node, *, folder: Path, key: str, seconds: float) -> None:
    """Note beside a node's outputs that it is done.

    Args:
        node: The node.
        folder: Its ``out_dir``; the record holds as long as every file in it is there, and the
            manifest in its ``run_dir``.
        key: The node's key.
        seconds: How long it took.
    """
    outputs = [p for p in folder.rglob("*") if p.is_file() and p.name != ".done.json"]
    manifest = Path(node.places.get("run_dir", "")) / "manifest.json"
    outputs += [manifest] if manifest.is_file() else []
    names = sorted(os.path.relpath(path, folder) for path in outputs)
    write_json(_record_path(folder), {"key": key, "seconds": seconds, "outputs": names})


def read_record(*, folder: Path, key: str) -> float | None:
    """Look up whether a node with this key is done and all that it wrote is still there.

    Args:
        folder: The node's ``out_dir``.
        key: The node's key now.

    Returns:
        How many seconds it took, or None if it is to be executed.

    Example:
        >>> read_record(folder=Path("nowhere"), key="0" * 64) is None
        True
    """
    try:
        record: dict[str, Any] = json.loads(_record_path(folder).read_text(encoding="utf-8"))
        there = all((folder / path).exists() for path in record["outputs"])
        return float(record["seconds"]) if there and record["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


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
