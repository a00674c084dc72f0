"""What the commands share: their options, a config from words, and how facts are shown."""

import json
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from fopro_lab.config import Config

    ConfigType = TypeVar("ConfigType", bound=Config)

KINDS: dict[str, Any] = {
    "no_args_is_help": True,
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}
Settings = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="One knob; may be repeated.")
]
FromFile = Annotated[
    str, typer.Option("-f", "--file", metavar="FILE.yaml", help="Knobs from a file; --set wins.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for a program to read.")]
Out = Annotated[str, typer.Option("--out", metavar="DIR", help="Folder for the results.")]


def read_config(kind: "type[ConfigType]", settings: list[str], file: str) -> "ConfigType":
    """Build a config from a file and ``--set``, the latter on top, entry by entry."""
    from fopro_lab.settings import merged, parse_settings, read_yaml

    return kind.from_mapping(
        merged(read_yaml(file) if file else {}, parse_settings(settings), kind=kind)
    )


def show(values: dict[str, Any], *, as_json: bool) -> None:
    """Print names and values, a line each, or as JSON."""
    if as_json:
        print(json.dumps(values, indent=2, default=str))
        return
    width = max(map(len, values))
    for name, value in values.items():
        print(f"{name:<{width}}  {json.dumps(value, default=str).strip(chr(34))}")
