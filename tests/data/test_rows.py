"""One check of row numbers, and every door behind which it stands."""

import numpy as np
import pandas as pd
import pytest

from fopro_lab.checks import audit_pipeline
from fopro_lab.data import batches, cycle, open_dataset, pack, paired_batches, read_pixels
from fopro_lab.data.dataset import check_rows
from fopro_lab.errors import InputError

DOORS = {
    "batches": lambda packed, rows: batches(packed, rows, batch_size=4),
    "cycle": lambda packed, rows: cycle(packed, rows, batch_size=4),
    "paired_batches": lambda packed, rows: paired_batches(packed, rows, alpha=0.2, batch_size=4),
    "read_pixels": read_pixels,
    "for_torch": lambda packed, rows: packed.for_torch(rows),
    "subset": lambda packed, rows: packed.dataset.subset(rows),
    "audit_pipeline": lambda packed, rows: audit_pipeline(packed, rows, edges=[0, 0.5]),
}
MASK = r"^rows: expected row numbers, got a mask; np\.flatnonzero\(mask\) gives them$"


@pytest.fixture(scope="module")
def packed():
    return pack(open_dataset("phantom", images=24), 16, progress=False)


@pytest.mark.parametrize("door", DOORS)
def test_a_mask_is_refused_at_every_door(packed, door):
    for mask in (packed.labels == 0, (packed.labels == 0).tolist(), pd.Series(packed.labels == 0)):
        with pytest.raises(InputError, match=MASK):
            DOORS[door](packed, mask)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0.0, 1.7], r"^rows: expected whole numbers, got float64$"),
        (["0", "1"], r"^rows: expected whole numbers, got <U1$"),
        ([[0, 1], [2, 3]], r"^rows: expected one axis, got shape \(2, 2\)$"),
        (3, r"^rows: expected one axis, got shape \(\)$"),
        ([0, 24], r"^rows: expected 0 to 23, got 0 to 24; was the split made of the same"),
        ([-1, 2], r"^rows: expected 0 to 23, got -1 to 2; "),
        (np.array([2**64 - 1], dtype=np.uint64), r"^rows: expected 0 to 23, got 18446744073709"),
    ],
)
def test_what_is_no_row_number_is_refused_at_every_door(packed, door, rows, message):
    with pytest.raises(InputError, match=message):
        DOORS[door](packed, rows)


@pytest.mark.parametrize(
    "rows", [range(3), [0, 1, 2], np.arange(3, dtype=np.uint8), pd.RangeIndex(3)]
)
def test_whole_numbers_of_any_kind_are_taken(rows):
    found = check_rows(rows, count=3)
    assert found.dtype == np.int64 and found.tolist() == [0, 1, 2]


def test_no_row_is_no_fault_of_its_own():
    for rows in ([], np.zeros(0), range(0)):
        assert check_rows(rows, count=3).dtype == np.int64 and not len(check_rows(rows, count=3))
