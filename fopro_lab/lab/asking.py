"""With what a report was asked for: kept in its folder, so that it can be resumed as it was."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fopro_lab.errors import InputError
from fopro_lab.files import write_json


@dataclass(frozen=True)
class Request:
    """What shapes the nodes of a report.

    Attributes:
        plan: The plan's file, as it was given.
        settings: Texts ``name=value``.
        files: Pin files, absolute.
    """

    plan: str
    settings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def write_request(request: Request, *, out: Path) -> None:
    """Note what a report is asked for, before anything runs.

    Args:
        request: Plan, settings and pin files.
        out: Folder of the report.
    """
    write_json(_place(out), asdict(request))


def asked(plan: Path | str, *, settings: Sequence[str], files: Sequence[Path | str]) -> Request:
    """Note what is asked for now.

    Args:
        plan: The plan's file.
        settings: Texts ``name=value``.
        files: Pin files.

    Example:
        >>> asked("plans/demo.yaml", settings=["epochs=3"], files=[]).settings
        ('epochs=3',)
    """
    return Request(str(plan), tuple(settings), tuple(_whole(file) for file in files))


def resumed(now: Request, *, out: Path) -> Request:
    """Take up what the report in a folder was asked for, and put what is asked for now on top.

    Args:
        now: What is asked for now.
        out: Folder of the report.

    Raises:
        InputError: If no report of this plan lies there.

    Example:
        >>> resumed(Request("plans/demo.yaml"), out=Path("nowhere"))
        Traceback (most recent call last):
        fopro_lab.errors.InputError: --resume: no report in nowhere; leave --resume out to start one
    """
    try:
        words = json.loads(_place(out).read_text(encoding="utf-8"))
        old = Request(words["plan"], tuple(words["settings"]), tuple(words["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"--resume: no report in {out}; leave --resume out to start one") from None
    if Path(old.plan).name != Path(now.plan).name:
        raise InputError(f"--resume: the report in {out} is of {old.plan}, not of {now.plan}")
    settings = dict.fromkeys((*old.settings, *now.settings))
    return Request(now.plan, tuple(settings), tuple(dict.fromkeys((*old.files, *now.files))))


def _whole(file: Path | str) -> str:
    return str(Path(file).absolute())


def _place(out: Path) -> Path:
    return out / ".request.json"
