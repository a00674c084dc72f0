"""Knobs as text: YAML files, ``--set`` words, and the config told back."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fopro_lab.config import Config
from fopro_lab.errors import InputError


class _Yaml(yaml.SafeLoader):
    """Reads ``on``, ``off``, ``yes`` and ``no`` as words, as YAML 1.2 does: "off" is a choice."""


_BOOL = "tag:yaml.org,2002:bool"
_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != _BOOL]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(
    _BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Args:
        path: The file.

    Returns:
        Its content; an empty file is an empty mapping.

    Raises:
        InputError: If it is missing, is not YAML, or holds something else.

    Example:
        >>> read_yaml("nowhere.yaml")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.yaml: no such file
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _Yaml)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}: expected YAML, got a syntax error{where}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected names and values, got a {type(content).__name__}")
    return content


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Turn ``--set`` texts into values; ``a.b=1`` sets one entry of the mapping ``a``.

    Args:
        settings: Texts ``name=value``, the value in YAML.

    Returns:
        Names and values.

    Raises:
        InputError: If a text has no ``=`` or its value is not YAML.

    Example:
        >>> parse_settings(["epochs=3", "dataset=~/my pictures", "objectives.task=0.5"])
        {'epochs': 3, 'dataset': '~/my pictures', 'objectives': {'task': 0.5}}
        >>> parse_settings(["heat_map=off", "per_channel=true"])
        {'heat_map': 'off', 'per_channel': True}
    """
    values: dict[str, Any] = {}
    for text in settings:
        name, equals, raw = text.partition("=")
        if not equals or not name:
            raise InputError(f"--set: expected name=value, got '{text}'")
        try:
            value = yaml.load(raw, _Yaml) if raw else ""
        except (yaml.YAMLError, ValueError):
            value = raw
        value = raw if value is None else value
        *parents, leaf = name.strip().split(".")
        target = values
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise InputError(f"--set: {name}: '{parent}' is set to a plain value as well")
        target[leaf] = value
    return values


def merged(
    base: Mapping[str, Any], top: Mapping[str, Any], *, kind: type[Config]
) -> dict[str, Any]:
    """Put settings on top of a file's values; a mapping is merged entry by entry.

    Args:
        base: Names and values, for example of a YAML file.
        top: What wins, for example ``--set``.
        kind: Whose defaults a mapping starts from where ``base`` says nothing.

    Returns:
        Names and values.

    Example:
        >>> from fopro_lab.config import PromptConfig
        >>> merged({}, {"objectives": {"task": 0.5}}, kind=PromptConfig)["objectives"]
        {'statistics': 1.0, 'task': 0.5, 'identity': 0.1}
    """
    values = dict(base)
    for name, value in top.items():
        if isinstance(value, Mapping):
            field = kind.model_fields.get(name)
            start = values.get(name, field.default if field is not None else {})
            value = {**start, **value} if isinstance(start, Mapping) else value
        values[name] = value
    return values


def explained(config: Config) -> str:
    """Print a config as YAML, each knob with its meaning behind it; it can be read back.

    Example:
        >>> from fopro_lab.config import TeacherConfig
        >>> explained(TeacherConfig()).splitlines()[0]
        'teacher: builtin  # builtin, timm:NAME, torchvision:NAME'
    """
    lines = []
    for name, value in config.model_dump(mode="json").items():
        text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
        lines.append(f"{name}: {text}  # {type(config).model_fields[name].description}")
    return "\n".join(lines)
