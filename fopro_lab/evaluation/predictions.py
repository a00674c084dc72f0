"""The table of predictions: what a run writes and what every score is computed from.

One row per image: ``image`` (unique within its split), ``group`` (lesion or patient, "" unknown),
``source`` (scanner or hospital, "" unknown), ``split`` ("val" or "test"), ``label`` (0 to K - 1),
then one column ``logit_<class name>`` per class in label order.
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
    """Return the class names of a table of predictions, in label order."""
    names = [str(column) for column in predictions.columns]
    return tuple(n.removeprefix(LOGIT_PREFIX) for n in names if n.startswith(LOGIT_PREFIX))


def resampling_units(table: pd.DataFrame) -> np.ndarray:
    """Return what a bootstrap draws as a whole: each image's group, or itself if it has none."""
    named = table["group"].where(table["group"] != "", "image " + table["image"])
    return named.to_numpy(dtype=str)


def check_predictions(predictions: pd.DataFrame, *, name: str = "predictions") -> pd.DataFrame:
    """Validate a table of predictions, which errors call by ``name``, such as a path.

    Returns:
        Exactly the columns of this file's head: texts ``str``, labels ``int64``, logits
        ``float64``.

    Raises:
        InputError: If a column, label, split or logit is not as documented, or an image repeats.
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
    twice = table.duplicated(["split", "image"])
    if twice.any():
        row = table[twice].iloc[0]
        raise InputError(
            f"{name}: image: expected every image once per split, "
            f"got '{row['image']}' again in '{row['split']}'"
        )
    for column in ("label", *logits):
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise InputError(f"{name}: {column}: expected numbers, got {table[column].dtype}")
    labels = table["label"]
    bad = labels.isna() | (labels < 0) | (labels >= len(logits)) | (labels % 1 != 0)
    if bad.any():
        raise InputError(
            f"{name}: label: expected whole numbers 0 to {len(logits) - 1}, "
            f"got {labels[bad].iloc[0]}"
        )
    bad = ~np.isfinite(table[logits].to_numpy(dtype="float64"))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"{name}: {logits[column]}: expected finite logits, got "
            f"{table[logits[column]][row]} for image '{table['image'][row]}'; the training diverged"
        )
    return table.astype({"label": "int64", **dict.fromkeys(logits, "float64")})


def write_predictions(path: Path | str, table: pd.DataFrame) -> None:
    """Validate a table of predictions and write it as parquet, completely or not at all."""
    checked = check_predictions(table)
    with atomic_path(path) as temporary:
        checked.to_parquet(temporary, index=False)


def read_predictions(path: Path | str) -> pd.DataFrame:
    """Read and validate a table of ``write_predictions``."""
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
