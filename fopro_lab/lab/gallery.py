"""`fopro gallery`: the figures of a report that the README shows, with where they are from.

Figures are taken as they are; one over the limit is encoded anew, with fewer colours, then fewer
pixels. Nothing is drawn here: what the gallery shows is what the report's notebooks wrote.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from fopro_lab.errors import InputError
from fopro_lab.files import atomic_path, write_json
from fopro_lab.lab.parameters import nearest

# What tells a report's story on one screen; a report has those that its notebooks drew.
CHOSEN = (
    "headline.csv",
    "class_recall.png",
    "group_recall.png",
    "difference_to_*.png",
    "learned_mask.png",
    "ring_response_per_energy.png",
)
LIMIT = 150  # kB a file: a README with five of them opens at once
_WIDTHS = (1190, 1000, 850, 700, 560)  # pixels
_MANIFEST = "manifest.json"


def make_gallery(
    report: Path | str, *, out: Path | str, chosen: Sequence[str] = (), limit: int = LIMIT
) -> Path:
    """Copy chosen files of a finished report into a gallery and say where they are from.

    Args:
        report: Folder of a report of which every notebook is done.
        out: Folder of the gallery; what an earlier gallery put there and this one does not is
            removed.
        chosen: ``NODE/FILE`` or ``FILE``, with ``*`` for any letters; empty takes what is usual,
            and nothing of an entry that has several notebooks.
        limit: Largest size of a picture, kB.

    Returns:
        Path of the gallery's ``README.md``; ``manifest.json`` beside it says the same as data.

    Raises:
        InputError: If there is no such report, it is not complete, or a chosen file is not in it.
        WorkError: If the disk is full or may not be written.

    Example:
        >>> make_gallery("nowhere", out="reports/gallery/nowhere")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere/report.json: no such file; ...
    """
    report, out = Path(report), Path(out)
    told = _read_report(report)
    if limit < 1:
        raise InputError(f"limit: expected 1 kB or more, got {limit}")
    files = _chosen_files(report, told, chosen)
    entries = []
    for name, source in files.items():
        width = _copy(source, out / name, limit=1000 * limit)
        entries.append(
            {
                "file": name,
                "from": source.relative_to(report).as_posix(),
                "sha256": hashlib.sha256((out / name).read_bytes()).hexdigest(),
                "of": hashlib.sha256(source.read_bytes()).hexdigest(),
                "shrunk": width,
            }
        )
    _forget_earlier(out, keep=set(files))
    facts = told["facts"]
    manifest = {
        "title": told["title"],
        "command": _command(facts),
        "gallery": _own_command(report, out, chosen, limit),
        "commit": facts.get("Commit", "unknown"),
        "finished": facts.get("Finished", "unknown"),
        "facts": facts,
        "files": entries,
    }
    write_json(out / _MANIFEST, manifest)
    with atomic_path(out / "README.md") as temporary:
        temporary.write_text(_readme(manifest), encoding="utf-8")
    return out / "README.md"


def _read_report(report: Path) -> dict[str, Any]:
    path = report / "report.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        states = {node["name"]: node["state"] for node in told["nodes"]}
        told["facts"]["Plan"]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a folder of `fopro report`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: expected a report's own file ({error})") from None
    open_ends = [f"{name} {state}" for name, state in states.items()
                 if state not in ("done", "kept")]  # fmt: skip
    if open_ends:
        raise InputError(
            f"{report}: expected a complete report, got {', '.join(open_ends[:3])}; "
            f"run `{_command(told['facts'])}` again"
        )
    return told


def _chosen_files(report: Path, told: dict[str, Any], chosen: Sequence[str]) -> dict[str, Path]:
    """Find the files, under the name that each bears in the gallery."""
    folders = {node["name"]: report / node["folder"] for node in told["nodes"]}
    entries = [node["entry"] for node in told["nodes"]]
    single = {node["name"] for node in told["nodes"] if entries.count(node["entry"]) == 1}
    there = [
        (name, path)
        for name, folder in folders.items()
        for path in sorted(folder.glob("*"))
        if path.suffix in (".png", ".csv") and (chosen or name in single)
    ]
    found: list[tuple[str, Path]] = []
    for pattern in chosen or CHOSEN:
        fits = [(name, path) for name, path in there if _fits(name, path, pattern)]
        if chosen and not fits:
            known = [f"{name}/{path.name}" for name, path in there]
            raise InputError(f"--take: {report} has no '{pattern}'; {nearest(pattern, known)}")
        found += [each for each in fits if each not in found]
    if not found:
        raise InputError(f"{report}: expected one of {', '.join(CHOSEN)}, found none; use --take")
    names = [path.name for _, path in found]
    # Of two files with one name, each bears its notebook's name as well.
    return {
        path.name if names.count(path.name) == 1 else f"{name}-{path.name}": path
        for name, path in found
    }


def _fits(name: str, path: Path, pattern: str) -> bool:
    return fnmatch(f"{name}/{path.name}" if "/" in pattern else path.name, pattern)


def _copy(source: Path, target: Path, *, limit: int) -> int:
    """Copy a file, a picture within the limit; return the new width in pixels, 0 if it kept its."""
    from PIL import Image

    content, width = source.read_bytes(), 0
    if source.suffix == ".png" and len(content) > limit:
        with Image.open(source) as opened:
            picture = opened.convert("RGB")
        for width in (picture.width, *(w for w in _WIDTHS if w < picture.width)):
            height = round(picture.height * width / picture.width)
            smaller = picture.resize((width, height), Image.Resampling.LANCZOS)
            stream = io.BytesIO()
            smaller.quantize(256, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
            content = stream.getvalue()
            if len(content) <= limit:
                break
        else:
            raise InputError(
                f"{source}: takes {len(content) / 1000:.0f} kB at {width} px, more than the "
                f"{limit / 1000:.0f} allowed; give a larger --limit"
            )
        width = width if width < picture.width else 0
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)
    return width


def _forget_earlier(out: Path, *, keep: set[str]) -> None:
    """Remove what an earlier gallery put here, and nothing else."""
    try:
        earlier = json.loads((out / _MANIFEST).read_text(encoding="utf-8"))["files"]
        names = [Path(entry["file"]).name for entry in earlier]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in names:
        if name not in keep:
            (out / name).unlink(missing_ok=True)


def _command(facts: dict[str, str]) -> str:
    settings = facts.get("Settings", "none")
    told = "" if settings == "none" else f" with the settings {settings}"
    return f"fopro report {facts['Plan']}{told}"


def _own_command(report: Path, out: Path, chosen: Sequence[str], limit: int) -> str:
    takes = "".join(f" --take '{pattern}'" for pattern in chosen)
    limits = "" if limit == LIMIT else f" --limit {limit}"
    return f"fopro gallery {report.as_posix()} --out {out.as_posix()}{takes}{limits}"


def _readme(manifest: dict[str, Any]) -> str:
    lines = [
        f"# {manifest['title']}",
        "",
        f"Finished {manifest['finished']}; code and plan are those of commit {manifest['commit']}:",
        "",
        "```",
        manifest["command"],
        manifest["gallery"],
        "```",
        "",
        "| file | from the report's | size |",
        "|---|---|---|",
    ]
    for entry in manifest["files"]:
        size = f"shrunk to {entry['shrunk']} px, fewer colours" if entry["shrunk"] else "as it is"
        lines.append(f"| [{entry['file']}]({entry['file']}) | {entry['from']} | {size} |")
    facts = {
        k: v for k, v in manifest["facts"].items() if k in ("Versions", "Machine", "Wall time")
    }
    lines += ["", *(f"- {name}: {value}" for name, value in facts.items())]
    return "\n".join([*lines, ""])
