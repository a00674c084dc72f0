"""The alternative: file by file through PIL and torchvision, with the published transforms."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fopro_lab.models.backbones import IMAGENET_MEAN, IMAGENET_STD


def published_transforms(size: int) -> Callable[[Image.Image], Tensor]:
    """Build the released recipe's training transforms, in torchvision's own words.

    Args:
        size: Side of the result, pixels; published with 224.

    Returns:
        From an image to ``(3, size, size)``, normalised.

    Source: recipe of the release of FoPro-KD's distillation half, see `fopro_lab.data.augment`.

    Example:
        >>> published_transforms(16)(Image.new("RGB", (40, 30))).shape
        torch.Size([3, 16, 16])
    """
    from torchvision import transforms  # late: it costs seconds

    recipe: Callable[[Image.Image], Tensor] = transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.RandomChoice(
                [
                    transforms.RandomAffine(degrees=0, scale=(0.95, 1.2)),
                    transforms.RandomAffine(degrees=0, translate=(0.05, 0)),
                    transforms.RandomAffine(degrees=45),
                ]
            ),
            transforms.ColorJitter(0.25, 0.25, 0.25, 0.01),
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    return recipe


def read_batch(paths: Sequence[Path], transform: Callable[[Image.Image], Tensor]) -> Tensor:
    """Read, transform and stack, as a loader's worker does.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     path = Path(place) / "a.png"
        ...     Image.new("RGB", (8, 8)).save(path)
        ...     read_batch([path, path], published_transforms(4)).shape
        torch.Size([2, 3, 4, 4])
    """
    images = []
    for path in paths:
        with Image.open(path) as opened:
            images.append(transform(opened.convert("RGB")))
    return torch.stack(images)
