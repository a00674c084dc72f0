"""Conditions of a plan: ``when:`` an entry is worth executing. Data only, nothing is evaluated."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fopro_lab.errors import InputError
from fopro_lab.lab.parameters import nearest

_WORDS = ("exists", "not", "any")


def check_condition(when: Mapping[str, Any], *, declared: Mapping[str, Any], where: str) -> None:
    """Refuse a condition that cannot be asked.

    Args:
        when: Names of parameters to a value or a list of values; ``exists`` to a path or a list
            of paths; ``not`` to a condition; ``any`` to a list of conditions. All must hold.
        declared: What the notebook declares.
        where: For the message: which entry of which plan.

    Raises:
        InputError: If a name is declared nowhere, or a word is followed by something else.

    Example:
        >>> check_condition({"metod": "ekd"}, declared={"method": "bsm"}, where="plan.yaml: tail")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: plan.yaml: tail: when: metod: ...; did you mean 'method'?
    """
    for name, wanted in when.items():
        if name == "exists":
            paths = wanted if isinstance(wanted, list) else [wanted]
            if not paths or not all(isinstance(path, str) and path for path in paths):
                raise InputError(f"{where}: when: exists: expected a path, got {wanted!r}")
        elif name in ("not", "any"):
            parts = [wanted] if name == "not" else wanted
            if not isinstance(parts, list) or not all(p and isinstance(p, Mapping) for p in parts):
                kind = "a condition" if name == "not" else "a list of conditions"
                raise InputError(f"{where}: when: {name}: expected {kind}, got {wanted!r}")
            for part in parts:
                check_condition(part, declared=declared, where=where)
        elif name not in declared:
            hint = nearest(str(name), [*declared, *_WORDS])
            raise InputError(f"{where}: when: {name}: not declared by its notebook; {hint}")
        elif wanted == []:
            raise InputError(f"{where}: when: {name}: expected one value or more")


def unmet(when: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Find what keeps a condition from holding.

    Args:
        when: As of `check_condition`.
        values: The node's parameters with the notebook's defaults.

    Returns:
        Empty if it holds, else the first part that does not, in words.

    Example:
        >>> unmet({"method": ["fopro", "random"]}, {"method": "ekd"})
        'method is ekd, not fopro or random'
        >>> unmet({"exists": "no/such.pth"}, {}), unmet({"not": {"seed": 0}}, {"seed": 1})
        ('no/such.pth is not there', '')
    """
    for name, wanted in when.items():
        reason = ""
        if name == "exists":
            paths = wanted if isinstance(wanted, list) else [wanted]
            absent = [path for path in paths if not Path(path).expanduser().exists()]
            reason = f"{absent[0]} is not there" if absent else ""
        elif name == "not":
            reason = "" if unmet(wanted, values) else f"{_told(wanted)} holds"
        elif name == "any":
            reasons = [unmet(part, values) for part in wanted]
            reason = "" if "" in reasons else " and ".join(reasons) or "no condition is given"
        else:
            choices = wanted if isinstance(wanted, list) else [wanted]
            if values[name] not in choices and values[name] != wanted:
                among = " or ".join(str(choice) for choice in choices)
                reason = f"{name} is {values[name]}, not {among}"
        if reason:
            return reason
    return ""


def _told(when: Mapping[str, Any]) -> str:
    return json.dumps(when, default=str).replace('"', "")
