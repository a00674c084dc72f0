"""From a plan to combinations of values: matrices, pin files and ``--set`` on top of each other."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fopro_lab.errors import InputError
from fopro_lab.lab.conditions import check_condition
from fopro_lab.lab.parameters import nearest
from fopro_lab.lab.plans import Plan, PlanEntry
from fopro_lab.settings import parse_settings, read_yaml


@dataclass(frozen=True)
class Overrides:
    """What the caller puts on top of a plan.

    Attributes:
        pins: Names and values of the pin files, the later file on top.
        values: Those of ``--set``, on top of the pins.
        dotted: Names of which ``--set`` changes single entries.
        sources: Where each pinned name comes from.
    """

    pins: dict[str, Any]
    values: dict[str, Any]
    dotted: set[str] = field(default_factory=set)
    sources: dict[str, str] = field(default_factory=dict)

    def axis(self, name: str) -> Any:
        """Return what replaces an axis of a matrix; None if nothing does."""
        return self.values.get(name, self.pins.get(name))

    def on(
        self, given: Mapping[str, Any], *, defaults: Mapping[str, Any], axes: set[str]
    ) -> dict[str, Any]:
        """Put pins and settings on a node's values, wherever its notebook declares the name."""
        result = dict(given)
        for layer in (self.pins, self.values):
            for key in defaults.keys() & layer.keys():
                if key in axes and isinstance(layer[key], list):
                    continue  # several values are meant for the matrix alone
                old = result.get(key, defaults[key])
                partly = layer is self.values and key in self.dotted and isinstance(old, dict)
                result[key] = {**old, **layer[key]} if partly else layer[key]
        return result


def read_overrides(settings: Sequence[str], files: Sequence[Path | str]) -> Overrides:
    """Read ``--set`` texts and pin files.

    Args:
        settings: Texts ``name=value``.
        files: YAML files of names and values; a path in one is seen from the current folder.

    Raises:
        InputError: If a file is missing or no mapping, or a text has no ``=``.

    Example:
        >>> read_overrides(["a.b=1"], []).dotted
        {'a'}
    """
    pins: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for file in files:
        content = {str(key): value for key, value in read_yaml(file).items()}
        pins |= content
        sources |= dict.fromkeys(content, f"-f {file}")
    names = [text.partition("=")[0].strip() for text in settings]
    dotted = {name.split(".")[0] for name in names if "." in name}
    return Overrides(pins, parse_settings(settings), dotted, sources)


def combinations(
    where: str, name: str, entry: PlanEntry, overrides: Overrides
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the choice of each combination of an entry's matrix.

    Args:
        where: For the message: which entry of which plan.
        name: Of the entry.
        entry: With its matrix.
        overrides: A value for an axis replaces the axis, and may be a list.

    Raises:
        InputError: If an axis has no value.

    Example:
        >>> entry = PlanEntry(notebook="a", matrix={"seed": [0, 1]})
        >>> [name for name, _ in combinations("", "train", entry, read_overrides([], []))]
        ['train-0', 'train-1']
    """
    axes = dict(entry.matrix)
    for key in axes:
        chosen = overrides.axis(key)
        if chosen is not None:
            axes[key] = chosen if isinstance(chosen, list) else [chosen]
    for axis, choices in axes.items():
        if not choices:
            raise InputError(f"{where}: matrix: {axis}: expected one value or more")
    for choice in itertools.product(*axes.values()):
        parts = [re.sub(r"[^\w.]+", "_", str(part)) for part in choice]
        yield "-".join([name, *parts]), dict(zip(axes, choice, strict=True))


def check_declared(
    path: Path | str, plan: Plan, overrides: Overrides, declared: Mapping[str, Mapping]
) -> None:
    """Refuse a name that no notebook, or not the one it is meant for, declares.

    Args:
        path: The plan's file.
        plan: Its content.
        overrides: Of the caller.
        declared: Names and defaults by entry.

    Raises:
        InputError: With the nearest name.
    """
    everywhere = {key: None for names in declared.values() for key in names}
    for name, entry in plan.notebooks.items():
        for key in [*entry.parameters, *entry.matrix]:
            if key not in declared[name]:
                hint = nearest(key, declared[name])
                raise InputError(f"{path}: {name}: {key}: not declared by {entry.notebook}; {hint}")
        if "out_dir" in entry.parameters or "out_dir" in entry.matrix:
            raise InputError(f"{path}: {name}: out_dir: set by the report itself; use --out")
        check_condition(entry.when, declared=declared[name], where=f"{path}: {name}")
    given = [(f"{path}: defaults", key) for key in plan.defaults]
    given += [(overrides.sources[key], key) for key in overrides.pins]
    given += [("--set", key) for key in overrides.values]
    for where, key in given:
        if key == "out_dir":
            raise InputError(f"{where}: out_dir: set by the report itself; use --out")
        if key not in everywhere:
            hint = nearest(key, everywhere)
            raise InputError(f"{where}: {key}: declared by no notebook of the plan; {hint}")
