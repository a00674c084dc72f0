"""How options are read: checked configs, old names, YAML files and ``--set``."""

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fopro_lab.errors import InputError
from fopro_lab.io import kind_of, regular, say_once

ConfigType = TypeVar("ConfigType", bound="Config")

# Option names of version 0.1 that changed, and what they are called now.
RENAMED = {
    **{f"{p}pictures": f"{p}images" for p in ("", "probe_", "band_", "heat_", "audit_")},
    **{f"explore_{p}": f"prompt_{p}" for p in ("steps", "every", "check_every", "patience")},
    **{f"rate_{p}": f"lr_{p}" for p in ("warmup", "floor", "milestones", "factor")},
    "explore_rate": "prompt_learning_rate",
    "explore_check_pictures": "prompt_check_images",
    "pins_dir": "presets_dir",
}
# Options of training that are gone, and the one value that still describes what happens.
OF_TRAINING = {"compile_teacher": False, "lr_milestones": [], "lr_factor": 0.1, "lr_floor": 0.0,
               "head_above": 700, "tail_below": 70, "prompt_rings": 8, "prompt_waves": 6,
               "prompt_patience": 0, "patience": 0, "fold_teacher": True}  # fmt: skip
REMOVED = {"decoder": "exact", "max_skipped": 5, "checkpoint_epochs": 1, "checkpoint_minutes": 10.0,
           "per_channel": False, "heat_block": 7, "probe_batch": 64, **OF_TRAINING}  # fmt: skip

# What other programs call an option, where the letters alone do not lead to it.
_SHORT = {"lr": "learning_rate", "wd": "weight_decay", "bs": "batch_size", "model": "student"}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the way out of a misspelt name: the nearest known one, or all if they are few."""
    known = list(known)
    short = [_SHORT[name]] if _SHORT.get(name) in known else []
    if near := [*short, *get_close_matches(name, known, n=1)]:
        return f"did you mean '{near[0]}'?"
    few = len(known) <= 20
    return f"known: {', '.join(known) or 'none'}" if few else "docs/options.md lists all"


def current_options(values: Mapping[str, Any], *, warn: bool = True) -> dict[str, Any]:
    """Translate the option names of version 0.1, with a line on stderr for each."""
    current: dict[str, Any] = {}
    for name, value in values.items():
        new = RENAMED.get(name, name)
        if new in current or (new != name and new in values):
            raise InputError(f"{name}: is called {new} now, and both are given; leave one out")
        current[new] = value
        if warn and new != name:
            sys.stderr.write(f"fopro: {name} is called {new} now; the old name goes with 0.3\n")
    return current


def without_removed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out options that are gone; one with another value than its old default is refused."""
    for name in [name for name in values if name in REMOVED]:
        if values[name] != REMOVED[name]:
            only = f"no longer an option, always {REMOVED[name]!r}"
            raise InputError(f"{name}: {only}; got {values[name]!r}; leave it out")
    return {name: value for name, value in values.items() if name not in REMOVED}


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``options`` out beside the other names, and translate names of version 0.1."""
    options = values.get("options", {})
    if not isinstance(options, Mapping):
        raise InputError(f"options: expected names and values, got {options!r}")
    rest = {name: value for name, value in values.items() if name != "options"}
    for name in options.keys() & rest:
        raise InputError(f"{name}: given twice, once in options; leave one out")
    return without_removed(current_options({**rest, **options}))


class Config(BaseModel):
    """Base of all configs: immutable, no unknown names, nothing infinite or undefined."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True
    )

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # options that a named recipe fills

    if not TYPE_CHECKING:  # static checkers and editors keep pydantic's own signature

        def __init__(self, *given: Any, **values: Any) -> None:
            kind = type(self)
            if given:
                way_out = f"{kind.__name__}(epochs=3), or {kind.__name__}.from_mapping(a_dict)"
                raise InputError(f"{kind.__name__}: expected names and values, as in {way_out}")
            values = without_removed(current_options(values))
            for name, value in values.items():
                if name not in kind.model_fields:
                    raise InputError(f"{name}: no such option; {nearest(name, kind.model_fields)}")
                values[name] = read_value(value, kind.model_fields[name].annotation, name=name)
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise InputError(first_problem(error, kind.__name__)) from None

        @classmethod
        def model_validate(cls, values: Any, **_: Any) -> Any:  # noqa: D102
            return cls.from_mapping(values)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse a change: numbers and folders go by the config that a run began with."""
        way_out = f"make one: model_copy(update={{'{name}': ...}})"
        raise InputError(f"{name}: a config is fixed; {way_out}")

    def model_copy(
        self: ConfigType, *, update: Mapping[str, Any] | None = None, deep: bool = False
    ) -> ConfigType:
        """Return a config with some other values, checked like any."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**given, **(update or {})})

    @classmethod
    def from_mapping(cls: type[ConfigType], values: Mapping[str, Any]) -> ConfigType:
        """Build the config of a mapping, such as a file's, as ``TrainConfig(...)`` does.

        Names of version 0.1 are accepted, and options that are gone at their old default. An
        unknown name (with the nearest known one) or a value out of range is an `InputError`.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"{cls.__name__}: expected names and values, got {values!r}")
        return cls(**{str(name): value for name, value in values.items()})

    @classmethod
    def from_parameters(cls: type[ConfigType], namespace: Mapping[str, Any]) -> ConfigType:
        """Build the config from a notebook's parameters cell, as `from_mapping` does.

        ``namespace`` is typically ``globals()`` after that cell. Names that are fields are taken,
        and every entry of the mapping ``options``, if there is one; one that repeats a changed
        parameter is an `InputError`.
        """
        # Old names, too: the parameter of a notebook of version 0.1 must not be ignored. One at its
        # default counts as not given, so that a recipe can fill it.
        fields, options = cls.model_fields, namespace.get("options", {})
        declared = {
            name: value
            for name, value in namespace.items()
            if (new := RENAMED.get(name, name)) in fields
            and value != fields[new].default
            and not callable(value)  # such as a prompt of a cell below, which ran before
        }
        values = flat({**declared, "options": options})
        recipe = cls.recipes.get(str(values.get("recipe")), {})
        free = [name for name in recipe if name in namespace and name not in values]
        filled = [f"{name} = {recipe[name]}" for name in free if recipe[name] != namespace[name]]
        if filled:
            say_once(f"the recipe sets {', '.join(filled)}; `options` can say otherwise")
        return cls.from_mapping(values)


def read_value(value: Any, hint: Any, *, name: str) -> Any:
    """Refuse what a number could silently be taken for, and turn paths and arrays into plain ones.

    ``010`` is 8 in YAML 1.1 and 10 elsewhere, ``true`` would be 1.
    """
    value = value.tolist() if hasattr(value, "tolist") else value  # of numpy or torch
    parts = get_args(hint)
    if get_origin(hint) is Annotated:
        return read_value(value, parts[0], name=name)
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        inner = parts[:1] * len(value) if parts[-1] is ... else parts
        if len(inner) == len(value):
            return [read_value(v, h, name=name) for v, h in zip(value, inner, strict=True)]
    if get_origin(hint) is dict and isinstance(value, Mapping):
        return {key: read_value(v, parts[1], name=f"{name}.{key}") for key, v in value.items()}
    if hint is bool and isinstance(value, float):
        raise InputError(f"{name}: expected true or false, got {value}")
    if hint in (int, float):
        if isinstance(value, int) and abs(value) >= 2**63:
            bits = value.bit_length()
            raise InputError(f"{name}: expected a number of up to 63 bits, got one of {bits}")
        if isinstance(value, bool):
            raise InputError(f"{name}: expected a number, got {str(value).lower()}")
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?0\d+\s*|.*\d_.*", value):
            raise InputError(f"{name}: expected a plain number such as 10, got '{value}'")
    return os.fspath(value) if hint is str and isinstance(value, os.PathLike) else value


def first_problem(error: ValidationError, kind: str) -> str:
    """Say the first problem that pydantic found in one line."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"] if part != "[key]") or kind
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, InputError):  # of a config within this one
        return f"{name}.{inner}"
    message = re.sub(r"^Value error, |^\w+ should (be|have) ", "", first["msg"])
    message = message.replace("a valid dictionary", "names with values, such as {'name': 1.0}")
    got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
    if first["type"] == "literal_error":
        message = message.replace("'', ", "'' (none), ")
    text = f"{name}: expected {message}{got}"
    choice = re.search(r"expected (.+ or .+), got '([^']+)'$", text)
    words = re.findall(r"[\w-]+", choice[1]) if choice else []
    near = get_close_matches(choice[2].lower(), words, n=1) if choice else []
    return f"{text}; did you mean '{near[0]}'?" if near else text


def option(default: Any, meaning: str, **limits: Any) -> Any:
    """Declare one option: its default, its meaning with the unit, and its range."""
    return Field(default, description=meaning, **limits)


class Yaml(yaml.SafeLoader):
    """Reads a number only where it would be written so, and refuses a key that comes twice.

    ``on``, ``off``, ``yes`` and ``no`` are words, as in YAML 1.2. So are ``010`` (8 in YAML 1.1),
    ``1:30`` (90), ``1_000`` and dates: an option that is text keeps them, one that is a number
    refuses or reads them.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth, self._nodes, self._sizes = 0, 0, dict[int, int]()  # of each part, by its id

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        """Count parts and levels before they are built, what an alias repeats as often as it is."""
        before, self._nodes, self._depth = self._nodes, self._nodes + 1, self._depth + 1
        if self.check_event(yaml.AliasEvent):  # of unknown size: of what it lies in itself
            known = self.anchors.get(self.peek_event().anchor)
            self._nodes += self._sizes.get(id(known), MOST_PARTS) if known else 0
        if getattr(self.peek_event(), "tag", None) not in (None, "!", f"{_TAG}str"):
            raise yaml.composer.ComposerError(None, None, "a tag", self.peek_event().start_mark)
        if self._nodes > MOST_PARTS or self._depth > MOST_LEVELS:
            most = f"more than {MOST_PARTS:,} values or {MOST_LEVELS} levels"
            raise yaml.composer.ComposerError(None, None, most, self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._sizes[id(node)], self._depth = self._nodes - before, self._depth - 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping whose keys come once each."""
        seen: set[str] = set()
        for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
            if key.value in seen:
                twice = f"'{key.value}' twice"
                raise yaml.constructor.ConstructorError(None, None, twice, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


MOST_PARTS, MOST_LEVELS, MOST_BYTES = 50_000, 40, 4_000_000  # of one file
_TAG = "tag:yaml.org,2002:"
_WHOLE = r"0|-?[1-9][0-9]*"
_PLAIN = {"bool": ("tTfF", r"true|True|TRUE|false|False|FALSE"), "int": ("-0123456789", _WHOLE)}
_PLAIN["float"] = ("-+.0123456789", rf"(?:{_WHOLE}|-0)\.(?:0|[0-9]*[1-9])|[-+]?\.inf|\.nan")
Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag.rpartition(":")[2] in ("null", "merge")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, (_first, _pattern) in _PLAIN.items():
    Yaml.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(rf"^(?:{_pattern})$"), list(_first))


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file that holds one mapping; an empty file is an empty mapping."""
    try:
        size = regular(path).stat().st_size
        text = Path(path).read_text(encoding="utf-8") if size <= MOST_BYTES else ""
        content = yaml.load(text, Yaml)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or f"is {kind_of(path)}"
        raise InputError(f"{path}: cannot be read as text ({reason})") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no such date
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", ""))
        what = "YAML, got a syntax error"
        if problem.endswith(" twice"):
            what = f"each name once, got {problem}"
        elif problem.startswith("more than "):
            what = f"less, got {problem},"
        raise InputError(f"{path}: expected {what}{where}") from None
    if size > MOST_BYTES:
        raise InputError(f"{path}: expected up to {MOST_BYTES:,} bytes, got {size:,}")
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected names and values, got a {type(content).__name__}")
    return content


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Turn ``--set`` texts ``name=VALUE`` in YAML into values; ``a.b=1`` sets one entry of ``a``.

    Example:
        >>> parse_settings(["heat_map=off", "deterministic=true", "objectives.task=0.5"])
        {'heat_map': 'off', 'deterministic': True, 'objectives': {'task': 0.5}}
    """
    values: dict[str, Any] = {}
    for text in settings:
        name, equals, raw = text.partition("=")
        if not equals or not name:
            raise InputError(f"--set: expected name=value, got '{text}'")
        try:
            value = yaml.load(raw, Yaml) if raw else ""
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


def merge_options(
    base: Mapping[str, Any], top: Mapping[str, Any], *, kind: type[Config]
) -> dict[str, Any]:
    """Put ``top`` on ``base``, mappings entry by entry, from the defaults of ``kind`` on."""
    values = dict(base)
    for name, value in top.items():
        if isinstance(value, Mapping):
            field = kind.model_fields.get(name)
            start = values.get(name, field.default if field is not None else {})
            value = {**start, **value} if isinstance(start, Mapping) else value
        values[name] = value
    return values


def explain(config: Config) -> str:
    """Write a config as YAML, each option followed by its meaning; it can be read back."""
    lines = []
    for name, value in config.model_dump(mode="json").items():
        lines.append(f"{name}: {one_line(value)}  # {type(config).model_fields[name].description}")
    return "\n".join(lines)


def one_line(value: Any) -> str:
    """Write a value as YAML in one line."""
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
