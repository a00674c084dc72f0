import pytest
import torch
from torch import nn

from fopro_lab.errors import InputError
from fopro_lab.models import wrap_teacher
from fopro_lab.training import class_gains
from tests.models.toys import toy_images

LABELS = torch.zeros(8, dtype=torch.int64)


def contrast_teacher(expected):
    """A teacher whose batch norm expects images of one contrast."""
    norm = nn.BatchNorm2d(3)
    norm.running_var.fill_(expected)
    body = nn.Sequential(norm, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return wrap_teacher(body, mean=[0.5] * 3, std=[1.0] * 3, input_size=16, feature_dim=3)


def test_each_class_gets_what_it_lacks():
    # The teacher knows a variance of 0.02: flat images must be amplified, strong ones damped.
    noise = toy_images(8, 16) - 0.5  # variance 1 / 12
    streams = {"flat": [(0.5 + 0.3 * noise, LABELS)], "strong": [(0.5 + noise, LABELS)]}
    table = class_gains(contrast_teacher(0.02), streams, steps=10, rings=2,
                        objectives={"statistics": 1.0})  # fmt: skip
    gains = table.pivot(index="class_name", columns="ring", values="gain")
    assert (gains.loc["flat"] > 1.1).all() and (gains.loc["strong"] < 0.9).all()
    assert table["high"].tolist() == [0.25, 0.5, 0.75] * 2


def test_a_class_alone_has_no_task():
    with pytest.raises(InputError) as error:
        class_gains(contrast_teacher(1.0), {"a": []}, steps=1, objectives={"task": 1.0})
    assert str(error.value) == (
        "objectives: expected names out of ('statistics', 'confidence', 'identity'), got ['task']"
    )
    with pytest.raises(InputError, match="batches: expected one class or more, got none"):
        class_gains(contrast_teacher(1.0), {}, steps=1, objectives={"statistics": 1.0})
