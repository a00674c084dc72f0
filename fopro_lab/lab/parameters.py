"""What a notebook's parameters cell declares, and whether a value fits it."""

import ast
import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fopro_lab.errors import InputError


def declared_parameters(notebook: Path | str) -> dict[str, Any]:
    """Read names and defaults from the cell tagged ``parameters``.

    papermill's own inspection overlooks ``x: int | None = None`` and cuts a text at ``#``; here
    Python's own parser reads the cell.

    Args:
        notebook: An ``.ipynb`` file.

    Returns:
        Default of every declared name, in the cell's order; empty when no cell is tagged.

    Raises:
        InputError: If the file is no notebook, two cells are tagged, or a default is no literal.

    Example:
        >>> import tempfile
        >>> cell = {"source": "epochs: int = 3  # passes", "metadata": {"tags": ["parameters"]}}
        >>> with tempfile.NamedTemporaryFile("w", suffix=".ipynb") as file:
        ...     _ = file.write(json.dumps({"cells": [cell]}))
        ...     file.flush()
        ...     declared_parameters(file.name)
        {'epochs': 3}
    """
    cells = [
        cell["source"]
        for cell in read_cells(notebook)
        if "parameters" in cell.get("metadata", {}).get("tags", [])
    ]
    if len(cells) > 1:
        raise InputError(f"{notebook}: expected one cell tagged 'parameters', got {len(cells)}")
    try:
        statements = ast.parse(cells[0]).body if cells else []
    except SyntaxError as error:
        raise InputError(f"{notebook}: parameters cell: line {error.lineno} is no Python") from None
    return dict(_name_and_default(notebook, statement) for statement in statements)


def _name_and_default(notebook: Path | str, statement: ast.stmt) -> tuple[str, Any]:
    """Split ``name: type = literal`` into name and default."""
    target: ast.expr | None = None
    if isinstance(statement, ast.AnnAssign):
        target = statement.target
    elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
    value = getattr(statement, "value", None)
    if isinstance(target, ast.Name) and value is not None:
        try:
            return target.id, ast.literal_eval(value)
        except ValueError:
            pass
    raise InputError(
        f"{notebook}: parameters cell: expected lines 'name: type = literal', "
        f"got '{ast.unparse(statement)}'; move it to the next cell"
    )


def read_cells(path: Path | str) -> list[dict[str, Any]]:
    """Read the cells of an ``.ipynb`` file; as plain JSON, since nbformat's import costs a second.

    Args:
        path: The file, in notebook format 4.

    Returns:
        Its cells, each with ``source`` as one text.

    Raises:
        InputError: If it is missing or is no notebook.

    Example:
        >>> read_cells("nowhere.ipynb")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.ipynb: no such notebook
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return [{**cell, "source": "".join(cell["source"])} for cell in content["cells"]]
    except FileNotFoundError:
        raise InputError(f"{path}: no such notebook") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: expected a notebook of format 4, got something else") from None


def fit_value(value: Any, default: Any, *, name: str) -> Any:
    """Check a value against the type of the declared default.

    A whole number serves where a float is declared, and so does the text of a number, since YAML
    reads ``1e-3`` as text. ``None`` as a default takes anything.

    Args:
        value: What a plan or ``--set`` gives.
        default: What the notebook declares.
        name: For the message: who wants which name.

    Returns:
        The value to hand to the notebook.

    Raises:
        InputError: If the type is another.

    Example:
        >>> fit_value("1e-3", 0.1, name="train: learning_rate")
        0.001
        >>> fit_value("many", 3, name="train: epochs")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: train: epochs: expected a whole number like 3, got 'many'
    """
    if default is None or type(value) is type(default):
        return value
    if isinstance(default, float) and type(value) in (int, str):
        try:
            return float(value)
        except ValueError:
            pass
    if isinstance(default, tuple) and isinstance(value, list):
        return value
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    kind = kinds.get(type(default), f"a {type(default).__name__}")
    hint = f"; quote it: '\"{value}\"'" if isinstance(default, str) else ""
    raise InputError(f"{name}: expected {kind} like {default!r}, got {value!r}{hint}")


def nearest(name: str, known: Mapping[str, Any] | list[str]) -> str:
    """Return the way out of a misspelt name: the nearest known one, or all of them.

    Example:
        >>> nearest("epoch", ["epochs", "seed"])
        "did you mean 'epochs'?"
        >>> nearest("zzz", ["epochs", "seed"])
        'known: epochs, seed'
    """
    match = get_close_matches(name, list(known), n=1)
    return f"did you mean '{match[0]}'?" if match else f"known: {', '.join(known) or 'none'}"
