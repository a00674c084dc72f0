"""Row numbers that a caller gave, checked before anything is read by them."""

import numpy as np

from fopro_lab.errors import InputError


def check_rows(rows: "np.typing.ArrayLike", *, count: int) -> np.ndarray:
    """Return row numbers as ``int64``, or refuse what is none.

    Nothing is cast in silence: a mask would become rows 0 and 1, a half the row below it.

    Args:
        rows: Whole numbers ``(n,)``; may be empty.
        count: How many rows there are.

    Returns:
        ``int64 (n,)``.

    Raises:
        InputError: For a mask, floats, more than one axis, or a row that is not there.

    Example:
        >>> check_rows(range(2), count=3)
        array([0, 1])
        >>> check_rows([True, False, True], count=3)
        Traceback (most recent call last):
        fopro_lab.errors.InputError: rows: expected row numbers, got a mask; ...
    """
    found = np.asarray(rows)
    if found.ndim != 1:
        raise InputError(f"rows: expected one axis, got shape {found.shape}")
    if not found.size:
        return np.zeros(0, dtype=np.int64)
    if found.dtype.kind == "b":
        raise InputError("rows: expected row numbers, got a mask; np.flatnonzero(mask) gives them")
    if found.dtype.kind not in "iu":
        raise InputError(f"rows: expected whole numbers, got {found.dtype}")
    if found.min() < 0 or found.max() >= count:
        raise InputError(
            f"rows: expected 0 to {count - 1}, got {found.min()} to {found.max()}; "
            "was the split made of the same pictures, pack.dataset?"
        )
    return found.astype(np.int64, copy=False)
