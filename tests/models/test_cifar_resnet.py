"""CIFAR's ResNets: equal to the layout written out in these tests, and filled key by key."""

import pytest
import torch

from fopro_lab.errors import InputError
from fopro_lab.models import load_teacher
from fopro_lab.models.backbones import CifarResNet
from tests.models import cifar


def test_cifar_resnet_equals_the_layout_written_out():
    torch.manual_seed(0)
    ours, theirs = CifarResNet(20).double().eval(), cifar.CifarResNet(3).double().eval()
    for buffer in ours.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 33, 32, dtype=torch.float64)
    with torch.no_grad():
        # Exact but for the order of sums; a shortcut shifted by a channel differs by 1e-1.
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["cifar-resnet21", "cifar-resnet", "cifar-resnet2", "cifar-resnetx"]
)
def test_a_depth_that_there_is_not_is_told(name, tmp_path):
    torch.save(CifarResNet(8).state_dict(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=rf"expected cifar-resnet with .* got '{name}'"):
        load_teacher(name, weights=str(tmp_path / "a.pth"))


def test_another_depth_than_the_file_is_told(tmp_path):
    torch.save(CifarResNet(8).state_dict(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"14 keys|of \d+ keys fit"):
        load_teacher("cifar-resnet14", weights=str(tmp_path / "a.pth"))


@pytest.mark.real
@pytest.mark.parametrize("file", ["resnet20-12fca82f.th", "resnet56-4bfd9763.th"])
def test_published_weights_fit_to_the_last_key(shared, file):
    teacher = load_teacher(
        f"cifar-{file.partition('-')[0]}", weights=str(shared / "weights" / file)
    )
    assert teacher.card["coverage"] == 1.0 and teacher.feature_dim == 64
    assert teacher.logits(torch.rand(2, 3, 32, 32)).shape == (2, 10)
