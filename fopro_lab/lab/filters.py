"""By what an index can be filtered: the state, the step, and parameters that differ."""

import re
from collections.abc import Sequence
from typing import Any

from fopro_lab.lab.outcomes import NodeReport

FIRST = ("method", "teacher", "seed", "fold")  # what one looks for most
_MOST_VALUES, _MOST_FILTERS = 24, 6
# A value may hold commas, as a list does; the next name and its sign end it.
_PARAMETER = re.compile(r"(\w+) = (.*?)(?=, \w+ = |$)", re.DOTALL)


def chosen_parameters(told: str) -> dict[str, str]:
    """Take the text of a node's parameters apart.

    Args:
        told: ``name = value, name = value``.

    Example:
        >>> chosen_parameters("gains = [0.0, 2.0], method = bsm")
        {'gains': '[0.0, 2.0]', 'method': 'bsm'}
    """
    return dict(_PARAMETER.findall(told))


def differing(nodes: Sequence[NodeReport]) -> list[str]:
    """Name the parameters that have more than one value in a report, in the order they come.

    A node that does not have a parameter says nothing about it.

    Args:
        nodes: Of the report.
    """
    values: dict[str, set[str]] = {}
    for node in nodes:
        for name, value in chosen_parameters(node.parameters).items():
            values.setdefault(name, set()).add(value)
    return [name for name, found in values.items() if len(found) > 1]


def filters(nodes: Sequence[NodeReport]) -> list[dict[str, Any]]:
    """List the choices that an index offers.

    Args:
        nodes: Of the report.

    Returns:
        ``name`` and ``values`` of each filter with two values or more: state, step, then the
        parameters that differ, methods and teachers first. A parameter of very many values is
        left to the search for words.
    """
    asked = {
        "state": list(dict.fromkeys(node.state for node in nodes)),
        "step": list(dict.fromkeys(node.entry for node in nodes)),
    }
    names = sorted(differing(nodes), key=lambda name: (*FIRST, name).index(name))
    for name in names[:_MOST_FILTERS]:
        found = (chosen_parameters(node.parameters).get(name) for node in nodes)
        asked[name] = sorted({value for value in found if value is not None}, key=_order)
    return [
        {"name": name, "values": values}
        for name, values in asked.items()
        if 1 < len(values) <= (_MOST_VALUES if name != "step" else 10 * _MOST_VALUES)
    ]


def words_of(node: NodeReport) -> dict[str, str]:
    """What the filters compare a node with: its state, its step and each parameter's value."""
    return {"state": node.state, "step": node.entry, **chosen_parameters(node.parameters)}


def _order(value: str) -> tuple[bool, float, str]:
    """Numbers by size, before words by letter."""
    try:
        return (False, float(value), value)
    except ValueError:
        return (True, 0.0, value)
