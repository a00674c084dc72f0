"""The fast form of a teacher, against the plain one in float64."""

import copy

import pytest
import timm
import torch
from torch import nn
from torchvision.models import resnet18

from fopro_lab.models import Teacher, load_teacher, wrap_teacher
from fopro_lab.models.teacher import quick_teacher

SIDE = 48


def lively(network: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights that a fold cannot leave out unseen."""
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1, generator=chance)
                layer.running_var.uniform_(0.5, 2, generator=chance)
                layer.weight.uniform_(0.5, 1.5, generator=chance)
                layer.bias.normal_(0, 0.1, generator=chance)
    return network


def wrapped(body: nn.Module, feature_dim: int, **told: object) -> Teacher:
    return wrap_teacher(body, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.25], input_size=SIDE,
                        feature_dim=feature_dim, **told)  # fmt: skip


def teacher_of(kind: str) -> Teacher:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "builtin":
            return load_teacher("builtin")
        if kind == "resnet18":
            network = resnet18(weights=None)
            network.fc = nn.Identity()
            return wrapped(lively(network), 512)
        network = timm.create_model(kind, pretrained=False, num_classes=0)
        return wrapped(lively(network), network(torch.rand(1, 3, SIDE, SIDE)).shape[1])


def toy_images(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).abs().max() / expected.abs().max())


# Plain, timm's norm with activation, timm's padded convolution and squeeze-excitation.
@pytest.mark.parametrize("kind", ["builtin", "resnet18", "mobilenetv2_050", "tf_efficientnet_b0"])
def test_folded_features_are_those_of_the_slow_form(kind):
    teacher = teacher_of(kind)
    said: list[str] = []
    before = copy.deepcopy(teacher.state_dict())
    quick = quick_teacher(teacher, tell=said.append)
    assert not said and teacher.batch_norms() and not quick.batch_norms()
    slow = copy.deepcopy(teacher).double()
    with torch.inference_mode():
        expected = slow.encode(toy_images().double())
        # Rounding alone: the plain float32 form is as far off. An epsilon of 1e-3 in place of
        # 1e-5 would be off by over 1e-3.
        assert relative(quick.encode(toy_images()), expected) < 3e-5
        assert relative(teacher.encode(toy_images()), expected) < 3e-5
    assert all(torch.equal(teacher.state_dict()[name], value) for name, value in before.items())
    assert not quick.training and not any(p.requires_grad for p in quick.parameters())


def test_the_bound_sees_a_wrong_epsilon():
    teacher = teacher_of("resnet18")
    wrong = copy.deepcopy(teacher)
    for layer in wrong.batch_norms():
        layer.eps = 1e-3
    with torch.inference_mode():
        assert relative(wrong.encode(toy_images()), teacher.encode(toy_images()).double()) > 3e-4


class Tangled(nn.Module):
    """Convolutions of which some batch norm may not be folded into one."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.read, self.plain = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(lively(nn.BatchNorm2d(3)) for _ in range(4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        shared = self.norms[1](self.twice(self.norms[0](self.twice(images))))
        raw = self.read(shared)
        kept = self.norms[2](raw)
        return (self.norms[3](self.plain(kept)) + raw).mean(dim=(2, 3))


def test_what_may_not_be_folded_is_left_and_said():
    said: list[str] = []
    teacher = wrapped(Tangled(), 3)
    quick = quick_teacher(teacher, tell=said.append)
    with torch.inference_mode():
        assert torch.equal(quick.encode(toy_images()), teacher.encode(toy_images()))
    # A convolution whose output is read past its norm, too, makes the features others.
    assert len(said) == 1 and said[0].startswith("teacher: batch norms not folded (features would")


def test_a_network_without_batch_norms_passes():
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    teacher = wrapped(body, 4)
    with torch.inference_mode():
        assert torch.equal(
            quick_teacher(teacher).encode(toy_images()), teacher.encode(toy_images())
        )


def test_half_precision_gives_float_features_that_are_near():
    teacher = teacher_of("resnet18")
    quick = quick_teacher(teacher, dtype=torch.bfloat16)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = quick.encode(toy_images())
    expected = teacher.encode(toy_images()).double()
    assert found.dtype == torch.float32
    # bfloat16 rounds at 0.004, some twenty times on the way; mean and std rounded with the
    # images, not before them, would go unseen, a channel left out would be off by over 0.1.
    assert 1e-4 < relative(found, expected) < 0.05


def test_a_compiler_that_fails_is_said_once_and_done_without(monkeypatch):
    def fails(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(torch, "compile", lambda body: fails)
    said: list[str] = []
    teacher = teacher_of("builtin")
    quick = quick_teacher(teacher, fold=False, compiled=True, tell=said.append)
    with torch.inference_mode():
        for _ in range(2):
            assert torch.equal(quick.encode(toy_images()), teacher.encode(toy_images()))
    assert said == ["teacher: not compiled (no compiler); going on without"]


def test_a_compiled_teacher_is_called(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda body: lambda images: body(images) * 2)
    teacher = teacher_of("builtin")
    quick = quick_teacher(teacher, fold=False, compiled=True)
    with torch.inference_mode():
        assert torch.equal(quick.encode(toy_images()), 2 * teacher.encode(toy_images()))
