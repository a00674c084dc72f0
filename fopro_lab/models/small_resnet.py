"""The network of the built-in teacher and of the small student."""

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm around a shortcut (He et al., CVPR 2016, fig. 2).

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        stride: 1 keeps the size, 2 halves it.

    Example:
        >>> ResidualBlock(8, 16, stride=2)(torch.rand(1, 8, 6, 6)).shape
        torch.Size([1, 16, 3, 3])
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, H / stride, W / stride)``."""
        hidden = torch.relu(self.bn1(self.conv1(images)))
        return torch.relu(self.bn2(self.conv2(hidden)) + self.shortcut(images))


class SmallResNet(nn.Module):
    """Residual network of ten layers whose first convolution halves the picture.

    Takes normalised pictures of any size from 16 px on; the published ResNet-10 layout with a
    3 x 3 stem, so that pictures of 32 and 64 px keep a map to pool over.

    Args:
        width: Channels of the first of four stages; each next stage doubles them.
        classes: Outputs of the linear head; 0 leaves it out.

    Example:
        >>> SmallResNet(width=8, classes=5)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 5])
    """

    def __init__(self, *, width: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        self.layers = nn.Sequential(
            *(ResidualBlock(widths[k], widths[k + 1], stride=1 if k == 0 else 2) for k in range(4))
        )
        self.feature_dim = widths[-1]
        self.fc = nn.Linear(self.feature_dim, classes) if classes else nn.Identity()

    def features(self, images: Tensor) -> Tensor:
        """Map normalised pictures ``(B, 3, H, W)`` to pooled features ``(B, D)``."""
        hidden = torch.relu(self.bn1(self.conv1(images)))
        return self.layers(hidden).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised pictures ``(B, 3, H, W)`` to logits ``(B, classes)``."""
        return self.fc(self.features(images))
