"""What a result depends on beside its parameters: the package's source and the files it reads."""

import hashlib
import os
from collections.abc import Mapping, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any

import fopro_lab

PATHS = ("dataset", "split_files", "weights", "student_weights", "prompt_file", "natural")
_RUNNER = (
    "asking",
    "batch",
    "compare_pages",
    "conditions",
    "dry_run",
    "execute",
    "executors",
    "expanding",
    "filters",
    "fitting",
    "gallery",
    "headlines",
    "index",
    "kernels",
    "limits",
    "needs",
    "nodes",
    "outcomes",
    "pages",
    "parameters",
    "plans",
    "records",
    "report_tables",
    "reports",
    "runners",
    "states",
    "thumbnails",
)


@cache
def package_hash() -> str:
    """Hash the source of all that a notebook can import: not the runner, not the door.

    Example:
        >>> len(package_hash())
        64
    """
    root = Path(fopro_lab.__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.safetensors")]):
        name = path.relative_to(root).as_posix()
        parts = name.removesuffix(".py").split("/")
        if parts[0] != "cli" and not (parts[0] == "lab" and parts[1] in _RUNNER):
            digest.update(name.encode() + path.read_bytes())
    return digest.hexdigest()


@cache
def page_hash() -> str:
    """Hash what makes the pages of a report: a finished one is written anew when it changes.

    Example:
        >>> len(page_hash())
        64
    """
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(
        [*root.glob("*.py"), *(p for p in root.glob("templates/**/*") if p.is_file())]
    ):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def files_states(
    parameters: Mapping[str, Any], *, known: MutableMapping[str, str] | None = None
) -> dict[str, str]:
    """Tell the state of every file or folder that a node's parameters point to.

    Args:
        parameters: Names and values. Those in `PATHS` are paths; of the others a text with a
            separator is, so that a method's name never means a folder that happens to lie here.
        known: States of paths that were looked up before, and are added here: many nodes read
            one data set, and listing it takes a while.

    Returns:
        A hash of names, sizes and times by parameter; no entry where there is no such path.

    Example:
        >>> files_states({"method": "ekd", "dataset": "phantom", "folder": "../no/such"})
        {}
    """
    known = {} if known is None else known
    states = {}
    for name, value in parameters.items():
        if isinstance(value, str) and value and (name in PATHS or os.sep in value):
            if value not in known:
                known[value] = _files_state(Path(value).expanduser())
            if known[value]:
                states[name] = known[value]
    return states


def _files_state(path: Path) -> str:
    if not path.exists():
        return ""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    states = [(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(repr(states).encode()).hexdigest()
