"""A time limit as people write it."""

import re

from fopro_lab.errors import InputError

_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def limit_seconds(text: str, *, name: str, unit: str = "") -> float:
    """Read a time limit.

    Args:
        text: A number and ``s``, ``min`` or ``h``; empty for none.
        name: For the message: whose limit it is.
        unit: Of a number alone; empty refuses it.

    Returns:
        Seconds, 0 for no limit.

    Raises:
        InputError: If it is none, or not longer than 0.

    Example:
        >>> limit_seconds("30 min", name="limit"), limit_seconds("2", name="--limit", unit="min")
        (1800.0, 120.0)
        >>> limit_seconds("soon", name="plan.yaml: train: limit")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: plan.yaml: train: limit: expected a time such as ...
    """
    if not text:
        return 0.0
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(s|min|h)?\s*", text)
    chosen = (match[2] or unit) if match else ""
    seconds = float(match[1]) * _SECONDS[chosen] if match and chosen else 0.0
    if seconds <= 0:
        raise InputError(f"{name}: expected a time such as '90 s', '30 min' or '2 h', got '{text}'")
    return seconds
