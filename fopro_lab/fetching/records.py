"""What was fetched, noted beside the data: for programs, and for people."""

import json
import time
from pathlib import Path
from typing import Any

from fopro_lab.fetching.publishers import Source
from fopro_lab.files import atomic_path, write_json

RECORD = "fetched.json"


def read_record(place: Path) -> dict[str, Any]:
    """Return what is noted in a folder, or what an empty one would hold.

    Example:
        >>> read_record(Path("nowhere"))
        {'complete': False, 'files': {}}
    """
    try:
        record = json.loads((place / RECORD).read_text(encoding="utf-8"))
        if isinstance(record["files"], dict) and isinstance(record["complete"], bool):
            return dict(record)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {"complete": False, "files": {}}


def is_complete(source: Source, place: Path) -> bool:
    """Say whether all of a source was fetched and still lies there; looks at no picture.

    Example:
        >>> from fopro_lab.fetching.publishers import find_source
        >>> is_complete(find_source("moco-v2"), Path("nowhere"))
        False
    """
    return read_record(place)["complete"] and all((place / name).exists() for name in source.places)


def note_file(place: Path, source: Source, name: str, facts: dict[str, Any]) -> None:
    """Note that a file is whole and in place.

    Args:
        place: The source's folder.
        source: What is fetched.
        name: Of the file.
        facts: Address, bytes, sha256, and against what it was checked.
    """
    record = read_record(place)
    files = record["files"] | {name: facts}
    write_json(place / RECORD, {"source": source.name, "complete": False, "files": files})


def note_complete(place: Path, source: Source) -> None:
    """Write licence and origin for people, then note that all is there."""
    record = read_record(place)
    day = time.strftime("%Y-%m-%d")
    with atomic_path(place / "LICENCE.txt") as temporary:
        temporary.write_text(_licence(source), encoding="utf-8")
    with atomic_path(place / "SOURCE.txt") as temporary:
        temporary.write_text(_origin(source, record["files"], day), encoding="utf-8")
    write_json(place / RECORD, record | {"complete": True, "date": day})


def described(source: Source) -> str:
    """Return licence, citation and home of a source as lines.

    Example:
        >>> from fopro_lab.fetching.publishers import find_source
        >>> described(find_source("hyperkvasir")).splitlines()[0]
        'licence: CC BY 4.0'
    """
    note = f"\nnote: {source.note}" if source.note else ""
    return (
        f"licence: {source.licence}\nplease cite: {source.citation}\n"
        f"publisher's page: {source.home}{note}"
    )


def _licence(source: Source) -> str:
    return (
        f"{source.name}\n\n{described(source)}\n\n"
        "The publisher's page has the terms in full; they are the publisher's, not this "
        "package's.\n"
    )


def _origin(source: Source, files: dict[str, dict[str, Any]], day: str) -> str:
    lines = [f"{source.name}, fetched {day}", "", described(source)]
    for name, facts in files.items():
        lines += ["", name, *(f"  {key}: {value}" for key, value in facts.items())]
    return "\n".join(lines) + "\n"
