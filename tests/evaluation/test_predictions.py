import re

import numpy as np
import pandas as pd
import pytest

from fopro_lab.evaluation.scores import check_predictions, read_predictions, write_predictions
from tests.conftest import refuses
from tests.evaluation.toy_runs import predictions


def test_check_predictions_orders_columns_and_sets_types():
    table = predictions()
    shuffled = table[[*table.columns[::-1]]].astype({"label": "float32", "logit_nv": "float32"})
    checked = check_predictions(shuffled.assign(extra=1, source=None))
    logits = [c for c in shuffled.columns if c.startswith("logit_")]
    assert list(checked.columns) == ["image", "group", "source", "split", "label", *logits]
    assert checked["label"].dtype == "int64" and checked["logit_nv"].dtype == "float64"
    assert set(checked["source"]) == {""}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="group"), "predictions: expected a column 'group', got image, "),
        (lambda t: t[[*t.columns[:6]]], "'logit_<class>' for each of two classes or more, got 1"),
        (lambda t: t.assign(split="train"), "split: expected 'val' or 'test', got 'train'"),
        (lambda t: t.iloc[:0], "expected at least one image, got none"),
        (lambda t: t.assign(label=4), "label: expected whole numbers 0 to 3, got 4"),
        (lambda t: t.assign(label=np.nan), "label: expected whole numbers 0 to 3, got nan"),
        (lambda t: t.assign(image="x"), "expected an image once per split, got 'x' twice in 't"),
        (lambda t: t.assign(logit_df=np.inf), "expected finite logits, got inf for image 'image_0"),
    ],
)
def test_check_predictions_tells_what_is_wrong_in_one_line(change, message):
    refuses(re.escape(message), check_predictions, change(predictions()))


def test_read_predictions_returns_what_was_written_or_names_a_damaged_file(tmp_path):
    table = predictions()
    both = pd.concat([table, table.assign(split="val")], ignore_index=True)
    write_predictions(tmp_path / "run" / "predictions.parquet", both)
    pd.testing.assert_frame_equal(
        read_predictions(tmp_path / "run" / "predictions.parquet"), both, check_dtype=False
    )
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["predictions.parquet"]
    path = tmp_path / "predictions.parquet"
    refuses("label: expected whole numbers", write_predictions, path, predictions().assign(label=9))
    assert not path.exists()
    path.write_bytes(b"PAR1")
    refuses(r"predictions.parquet: expected a parquet table", read_predictions, path)
