"""What the doctor says of files that are no images, and of a group that is too large."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fopro_lab.checks.report import check_data, judge_groups
from fopro_lab.config import DataConfig
from tests.auditing.toys import texture

TIES = pd.DataFrame({"part": ["test"], "other": ["val"], "group": [False]})
NONE_TORN = pd.DataFrame()


def test_other_files_are_told_and_no_fault(tmp_path):
    for number in range(24):
        path = tmp_path / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(texture(number)).save(path)
    config = DataConfig(dataset=str(tmp_path), image_size=32)
    reading = check_data(config, progress=False).findings[0]
    assert (reading.level, reading.verdict) == ("ok", "all 24 images can be read")
    (tmp_path / "class1" / "25.dcm").touch()
    (tmp_path / "class0" / "IMG_0001").touch()
    reading = check_data(config, progress=False).findings[0]
    told = "2 other files passed over, first class0/IMG_0001"
    assert (reading.level, reading.verdict) == ("note", f"all 24 images can be read; {told}")
    (tmp_path / "class0" / "0.png").write_bytes(b"")
    reading = check_data(config, progress=False).findings[0]
    assert reading.level == "fail" and reading.verdict.endswith(f"of the others; {told}")


@pytest.mark.parametrize(
    ("largest", "others", "level"),
    [(21, 186, "note"), (20, 100, "ok"), (21, 190, "ok"), (300, 4, "note")],
)
def test_a_group_of_more_than_twenty_and_a_tenth_is_told(largest, others, level):
    """21 of 207 are more than a tenth, 21 of 211 are not; groups of two beside it."""
    names = ["not sure"] * largest + [f"g{k}" for k in np.arange(others) // 2]
    table = pd.DataFrame({"group": names, "image": [f"i{k}" for k in range(len(names))]})
    found = judge_groups(table, NONE_TORN, TIES)
    assert found.level == level
    told = f"; 'not sure' alone has {largest:,} of {largest + others:,} images"
    assert found.verdict.endswith(told) == (level == "note")
