"""Teachers of the size of the published ones: what they cost does not depend on their weights."""

import torch
from torch import nn

from fopro_lab.models import Teacher, wrap_teacher
from fopro_lab.models.backbones import IMAGENET_MEAN, IMAGENET_STD


def random_resnet50(size: int) -> Teacher:
    """Make a teacher as large as the published one; its weights are random, its cost is not.

    Args:
        size: Side of the images it is shown, pixels.

    Returns:
        The teacher, 2048 features; torch's global generator is left as it is.
    """
    from torchvision.models import resnet50  # late: it costs seconds

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = resnet50(weights=None)
    network.fc = nn.Identity()
    return wrap_teacher(
        network,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        input_size=size,
        feature_dim=2048,
        name="resnet50, random weights",
    )
