import pytest
import torch
from torch import nn

from fopro_lab.models.backbones import ResidualBlock, SmallResNet
from tests.models.toys import toy_images


def test_a_block_without_residual_passes_what_is_positive():
    block = ResidualBlock(4, 4, stride=1).eval()
    nn.init.zeros_(block.bn2.weight)
    images = torch.randn(2, 4, 6, 6)
    assert torch.equal(block(images), images.relu())


@pytest.mark.parametrize(("inputs", "stride"), [(4, 2), (3, 1)])
def test_a_block_that_changes_shape_projects_its_shortcut(inputs, stride):
    block = ResidualBlock(inputs, 4, stride=stride)
    assert isinstance(block.shortcut, nn.Sequential)
    assert block(torch.rand(2, inputs, 6, 6)).shape == (2, 4, 6 // stride, 6 // stride)


def test_logits_are_linear_in_the_pooled_features():
    network = SmallResNet(width=4, classes=3).eval()
    images = toy_images(2, 32)
    assert network.features(images).shape == (2, 32)
    assert torch.equal(network(images), network.fc(network.features(images)))


def test_without_classes_it_gives_features():
    network = SmallResNet(width=4, classes=0).eval()
    assert torch.equal(network(toy_images(2, 32)), network.features(toy_images(2, 32)))


@pytest.mark.parametrize("side", [16, 17, 32, 64, 100])
def test_it_takes_any_size_from_16_px(side):
    assert SmallResNet(width=4, classes=3)(toy_images(2, side)).shape == (2, 3)


def test_it_has_ten_layers_with_weights():
    network = SmallResNet(width=4, classes=3)
    layers = [m for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))
              and "shortcut" not in n]  # fmt: skip
    assert len(layers) == 10


def test_every_weight_has_a_gradient():
    network = SmallResNet(width=4, classes=3)
    network(toy_images(4, 32)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
