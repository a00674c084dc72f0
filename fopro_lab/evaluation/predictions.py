"""The table of predictions: what a run writes and every verdict reads.

One row an image: ``image`` (unique within its split), ``group`` (lesion or patient, "" unknown),
``source`` (scanner or hospital, "" unknown), ``split`` ("val" or "test"), ``label`` (0 to K - 1),
then one column ``logit_<class name>`` a class in label order.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from fopro_lab.errors import InputError
from fopro_lab.io import atomic_path

TEXT_COLUMNS = ("image", "group", "source", "split")
SPLITS = ("val", "test")
LOGIT_PREFIX = "logit_"


def class_names(predictions: pd.DataFrame) -> tuple[str, ...]:
    """Return the class names of a table of predictions in label order.

    Args:
        predictions: The table; only its column names are read.

    Returns:
        The K names.

    Example:
        >>> class_names(pd.DataFrame(columns=["image", "label", "logit_nv", "logit_mel"]))
        ('nv', 'mel')
    """
    names = [str(column) for column in predictions.columns]
    return tuple(n.removeprefix(LOGIT_PREFIX) for n in names if n.startswith(LOGIT_PREFIX))


def check_predictions(predictions: pd.DataFrame, *, name: str = "predictions") -> pd.DataFrame:
    """Validate a table of predictions and give its columns their order and types.

    Args:
        predictions: The table; see the head of this file for its columns.
        name: What messages call it, a path for example.

    Returns:
        A table with exactly the documented columns, texts as ``str``, labels as ``int64`` and
        logits as ``float64``.

    Raises:
        InputError: For a missing column, fewer than two classes, an unknown split, a label
            outside 0 to K - 1, an image that comes twice, or a logit that is not finite.

    Example:
        >>> check_predictions(pd.DataFrame({"image": ["a"]}))
        Traceback (most recent call last):
        fopro_lab.errors.InputError: predictions: expected a column 'group', got image
    """
    for column in (*TEXT_COLUMNS, "label"):
        if column not in predictions:
            got = ", ".join(map(str, predictions.columns)) or "no columns"
            raise InputError(f"{name}: expected a column '{column}', got {got}")
    logits = [f"{LOGIT_PREFIX}{class_name}" for class_name in class_names(predictions)]
    if len(logits) < 2:
        raise InputError(
            f"{name}: expected a column '{LOGIT_PREFIX}<class>' for each of two classes or more, "
            f"got {len(logits)}"
        )
    table = predictions[[*TEXT_COLUMNS, "label", *logits]].reset_index(drop=True).copy()
    for column in TEXT_COLUMNS:
        table[column] = table[column].fillna("").astype(str)
    unknown = sorted(set(table["split"]) - set(SPLITS))
    if unknown:
        raise InputError(f"{name}: split: expected 'val' or 'test', got '{unknown[0]}'")
    table["label"] = _checked_labels(table["label"], classes=len(logits), name=name)
    twice = table.duplicated(["split", "image"])
    if twice.any():
        row = table[twice].iloc[0]
        raise InputError(
            f"{name}: image: expected every image once a split, "
            f"got '{row['image']}' again in '{row['split']}'"
        )
    _check_logits(table, logits, name=name)
    return table.astype({column: "float64" for column in logits})


def _checked_labels(labels: pd.Series, *, classes: int, name: str) -> pd.Series:
    """Return the labels as ``int64`` or tell the first one that is none."""
    rule = f"{name}: label: expected whole numbers 0 to {classes - 1}"
    if not pd.api.types.is_numeric_dtype(labels):
        raise InputError(f"{rule}, got the type {labels.dtype}")
    bad = labels.isna() | (labels < 0) | (labels >= classes) | (labels % 1 != 0)
    if bad.any():
        raise InputError(f"{rule}, got {labels[bad].iloc[0]}")
    return labels.astype("int64")


def _check_logits(table: pd.DataFrame, logits: list[str], *, name: str) -> None:
    """Tell the first logit that is no finite number."""
    for column in logits:
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise InputError(f"{name}: {column}: expected numbers, got {table[column].dtype}")
        bad = ~np.isfinite(table[column].to_numpy(dtype="float64"))
        if bad.any():
            row = table[bad].iloc[0]
            raise InputError(
                f"{name}: {column}: expected finite logits, "
                f"got {row[column]} for image '{row['image']}'; the training diverged"
            )


def write_predictions(path: Path | str, table: pd.DataFrame) -> None:
    """Validate a table of predictions and write it as parquet, whole or not at all.

    Args:
        path: Target file, by custom ``predictions.parquet`` in the run folder.
        table: The table; see the head of this file.

    Raises:
        InputError: If the table breaks a rule of ``check_predictions``.
        WorkError: If the disk is full or may not be written.

    Example:
        >>> import tempfile
        >>> table = pd.DataFrame({"image": ["a"], "group": [""], "source": [""], "split": ["test"],
        ...                       "label": [1], "logit_nv": [0.5], "logit_mel": [2.0]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_predictions(Path(folder) / "predictions.parquet", table)
        ...     len(read_predictions(Path(folder) / "predictions.parquet"))
        1
    """
    checked = check_predictions(table)
    with atomic_path(path) as temporary:
        checked.to_parquet(temporary, index=False)


def read_predictions(path: Path | str) -> pd.DataFrame:
    """Read and validate a table of predictions.

    Args:
        path: Parquet file written by ``write_predictions``.

    Returns:
        The table with the types of ``check_predictions``.

    Raises:
        InputError: If the file is missing, is no parquet file or breaks a rule.

    Example:
        >>> read_predictions("nowhere.parquet")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.parquet: no such file
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: expected a parquet table of predictions ({reason}); run the training again"
        ) from None
    return check_predictions(table, name=str(path))
