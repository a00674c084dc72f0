"""The small ResNets of CIFAR-10: teachers that may be smaller than their student."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from fopro_lab.errors import InputError
from fopro_lab.models.published import IMAGENET_MEAN, IMAGENET_STD
from fopro_lab.models.weights import Weights, load_matching

PREFIX = "cifar-resnet"
SIDE = 32  # pixels
WIDTH = 16  # channels of the first stage; the last has four times as many
CLASSES = 10


class CifarResNet(nn.Module):
    """ResNet of depth ``6 n + 2`` for pictures of 32 px, pooled features ``(B, 64)``.

    Shortcuts have no weights (option A): a strided slice with zero channels on both sides.

    Args:
        depth: 20, 32, 44, 56, 110, ...

    Source: He et al., CVPR 2016, arXiv:1512.03385, section 4.2.

    Example:
        >>> import torch
        >>> CifarResNet(20)(torch.rand(2, 3, 40, 48)).shape
        torch.Size([2, 64])
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, WIDTH, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.layer1 = _stage(WIDTH, WIDTH, stride=1, blocks=blocks)
        self.layer2 = _stage(WIDTH, 2 * WIDTH, stride=2, blocks=blocks)
        self.layer3 = _stage(2 * WIDTH, 4 * WIDTH, stride=2, blocks=blocks)
        self.linear = nn.Linear(4 * WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised pictures ``(B, 3, H, W)`` to features ``(B, 64)``."""
        maps = F.relu(self.bn1(self.conv1(images)))
        return self.layer3(self.layer2(self.layer1(maps))).mean(dim=(2, 3))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.zeros = (outputs - inputs) // 2  # channels on either side

    def forward(self, maps: Tensor) -> Tensor:
        changed = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(maps)))))
        kept = maps[:, :, :: self.stride, :: self.stride]
        return F.relu(changed + F.pad(kept, (0, 0, 0, 0, self.zeros, self.zeros)))


def _stage(inputs: int, outputs: int, *, stride: int, blocks: int) -> nn.Sequential:
    later = [_Block(outputs, outputs, 1) for _ in range(blocks - 1)]
    return nn.Sequential(_Block(inputs, outputs, stride), *later)


def build_cifar(name: str, weights: Weights) -> dict[str, Any]:
    """Build ``cifar-resnetDEPTH`` and fill it.

    Args:
        name: Such as ``cifar-resnet56``.
        weights: From `read_weights`.

    Returns:
        What `Teacher` takes; pictures of any size from 32 px on go in as they are.

    Raises:
        InputError: For a depth that there is not, or weights that do not fit.
    """
    text = name.removeprefix(PREFIX)
    depth = int(text) if text.isdecimal() else 0
    if depth < 8 or depth > 1202 or depth % 6 != 2:
        raise InputError(
            f"teacher: expected {PREFIX} with a depth of 6 n + 2, such as {PREFIX}20 or "
            f"{PREFIX}56, got '{name}'"
        )
    network = CifarResNet(depth)
    card = load_matching(network, weights)
    head, network.linear = network.linear, nn.Identity()  # type: ignore[assignment]
    return {
        "body": network,
        "head": head,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "input_size": SIDE,
        "feature_dim": 4 * WIDTH,
        "card": card,
    }
