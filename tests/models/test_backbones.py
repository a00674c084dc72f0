"""Networks: the small ResNet, CIFAR's, and those that timm and torchvision build from a file."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fopro_lab.errors import InputError
from fopro_lab.models import load_teacher
from fopro_lab.models.backbones import CifarResNet
from tests.models.toys import save_timm, toy_images


# The CIFAR ResNet of He et al. with option A shortcuts, written a second time.
class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(images)))))
        shortcut = images[:, :, :: self.stride, :: self.stride]
        shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, self.more // 2, self.more // 2))
        return torch.relu(hidden + shortcut)


class WrittenOut(nn.Module):
    """Three stages of ``blocks`` blocks; 9 make ResNet-56. Gives 64 pooled features."""

    def __init__(self, blocks: int = 9) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, 1, blocks)
        self.layer2 = self._stage(16, 32, 2, blocks)
        self.layer3 = self._stage(32, 64, 2, blocks)
        self.linear = nn.Linear(64, 10)

    @staticmethod
    def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
        rest = [Block(outputs, outputs, 1) for _ in range(blocks - 1)]
        return nn.Sequential(Block(inputs, outputs, stride), *rest)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.bn1(self.conv1(images)))
        return self.layer3(self.layer2(self.layer1(hidden))).mean(dim=(2, 3))


def test_cifar_resnet_equals_the_layout_written_out():
    torch.manual_seed(0)
    ours, theirs = CifarResNet(20).double().eval(), WrittenOut(3).double().eval()
    for buffer in ours.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    theirs.load_state_dict(ours.state_dict())
    ours.linear = nn.Identity()
    images = torch.randn(2, 3, 33, 32, dtype=torch.float64)
    with torch.no_grad():
        # Exact but for the order of sums; a shortcut shifted by a channel differs by 1e-1.
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["cifar-resnet21", "cifar-resnet", "cifar-resnet2", "cifar-resnetx"]
)
def test_an_unknown_depth_is_refused(name, tmp_path):
    torch.save(CifarResNet(8).state_dict(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=rf"expected cifar-resnet with .* got '{name}'"):
        load_teacher(name, weights=str(tmp_path / "a.pth"))


@pytest.mark.real
@pytest.mark.parametrize("file", ["resnet20-12fca82f.th", "resnet56-4bfd9763.th"])
def test_published_weights_fit_to_the_last_key(shared, file):
    teacher = load_teacher(
        f"cifar-{file.partition('-')[0]}", weights=str(shared / "weights" / file)
    )
    assert teacher.card["coverage"] == 1.0 and teacher.feature_dim == 64
    assert teacher.logits(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def message(call, *arguments, **settings):
    with pytest.raises(InputError) as caught:
        call(*arguments, **settings)
    return str(caught.value)


def load(path, architecture, **metadata):
    """Save a new network and load it as a teacher; give both."""
    model = save_timm(path / "a.safetensors", architecture, **metadata)
    return model, load_teacher(f"timm:{architecture}", weights=str(path / "a.safetensors"))


@pytest.mark.parametrize(
    "architecture", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"]
)
def test_a_timm_teacher_is_the_network_cut_before_its_classifier(tmp_path, architecture):
    model, teacher = load(tmp_path, architecture)
    images = toy_images(2, 160)
    with torch.inference_mode():
        expected = model((images - teacher.mean) / teacher.std)
        # 1e-5 is rounding between memory layouts; a head on another pooling is off by 1e-2.
        torch.testing.assert_close(teacher.logits(images), expected, rtol=1e-5, atol=1e-5)
    assert teacher.card["coverage"] == 1 and teacher.card["head"]
    defaults = timm.get_pretrained_cfg(architecture)
    assert teacher.card["mean"] == list(defaults.mean)
    assert teacher.card["std"] == list(defaults.std)
    assert teacher.input_size == 160
    # A network of fixed size resizes, any other takes images as they come.
    assert teacher.resize == (architecture == "test_vit")
    assert teacher.encode(toy_images(2, 64)).shape == (2, teacher.feature_dim)


def test_metadata_of_the_file_is_honoured(tmp_path):
    _, teacher = load(
        tmp_path, "test_efficientnet",
        mean="0.1, 0.2, 0.3", std="0.4,0.5,0.6", input_size="3,64,64", pad_type="same",
    )  # fmt: skip
    assert teacher.card["mean"] == [0.1, 0.2, 0.3] and teacher.card["std"] == [0.4, 0.5, 0.6]
    assert teacher.input_size == 64
    strided = [type(m).__name__ for m in teacher.modules() if type(m).__name__ == "Conv2dSame"]
    assert strided, "pad_type=same pads as TensorFlow does"
    _, plain = load(tmp_path, "test_efficientnet")
    assert not [m for m in plain.modules() if type(m).__name__ == "Conv2dSame"]


def test_a_file_cannot_choose_what_else_timm_does(tmp_path, monkeypatch):
    seen = []
    create = timm.create_model
    save_timm(
        tmp_path / "a.safetensors", "test_resnet",
        checkpoint_path="/etc/hostname", pretrained="1", cache_dir="/", scriptable="1",
        global_pool="avg",
    )  # fmt: skip
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: seen.append(k) or create(*a, **k))
    load_teacher("timm:test_resnet", weights=str(tmp_path / "a.safetensors"))
    assert seen == [{"num_classes": 7, "global_pool": "avg"}]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"mean": "a,b,c"}, "metadata mean: expected numbers, got 'a,b,c'"),
        ({"pad_type": "same"}, "its metadata does not suit test_resnet (ResNet.__init__() got an "
                               "unexpected keyword argument 'pad_type')"),
        ({"input_size": "-3"}, "its architecture takes no image of -3 px (zeros: Dimension size "
                               "must be non-negative.)"),
    ],
)  # fmt: skip
def test_metadata_that_does_not_suit_is_said(tmp_path, metadata, expected):
    path = tmp_path / "a.safetensors"
    save_timm(path, "test_resnet", **metadata)
    told = message(load_teacher, "timm:test_resnet", weights=str(path))
    assert told == f"weights: {path}: {expected}"


def test_a_wrapped_pickle_in_half_precision_loads(tmp_path):
    model = timm.create_model("test_resnet", num_classes=7).eval()
    state = {f"module.{name}": value.half() for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 9}, tmp_path / "a.pth")
    teacher = load_teacher("timm:test_resnet", weights=str(tmp_path / "a.pth"))
    assert teacher.card["coverage"] == 1 and teacher.head.out_features == 7
    assert next(teacher.parameters()).dtype == torch.float32


def test_unknown_names_are_answered_with_near_ones(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(1)}, path)
    assert message(load_teacher, "timm:resnet5", weights=str(path)).startswith(
        "teacher: timm has no model 'resnet5'; near: resnet5"
    )


def test_torchvision_teachers(tmp_path):
    # One test, since torchvision's import is slow.
    from torchvision import models

    path = tmp_path / "a.safetensors"
    model = models.mobilenet_v3_small(weights=None, num_classes=5).eval()
    save_file(model.state_dict(), path)
    teacher = load_teacher("torchvision:mobilenet_v3_small", weights=str(path))
    images = toy_images(2, 64)
    with torch.inference_mode():
        expected = model((images - teacher.mean) / teacher.std)
        torch.testing.assert_close(teacher.logits(images), expected, rtol=1e-5, atol=1e-5)
    assert teacher.feature_dim == 1024 and teacher.card["coverage"] == 1

    # Self-supervised: the query encoder has a projector where the classifier would be.
    resnet = models.resnet50(weights=None)
    state = {
        f"module.encoder_q.{name}": value.half()
        for name, value in resnet.state_dict().items()
        if not name.startswith("fc.")
    }
    torch.save(
        {"state_dict": state | {"module.encoder_q.fc.0.weight": torch.ones(2048, 2048)}},
        tmp_path / "moco.pth",
    )
    moco = load_teacher("moco-v2-resnet50", weights=str(tmp_path / "moco.pth"))
    assert (moco.feature_dim, moco.head, moco.card["coverage"]) == (2048, None, 1.0)

    assert message(load_teacher, "torchvision:nothing", weights=str(path)) == (
        "teacher: torchvision has no classification model 'nothing'"
    )
    assert message(load_teacher, "torchvision:squeezenet1_1", weights=str(path)) == (
        "teacher: torchvision's squeezenet1_1 has no linear classifier to cut before; "
        "build it yourself and use wrap_teacher"
    )


@pytest.mark.real
def test_the_published_mobilenet_loads_whole(shared):
    path = shared / "weights/mobilenetv2_100_imagenet_bncal.safetensors"
    teacher = load_teacher("timm:mobilenetv2_100", weights=str(path))
    assert teacher.card["coverage"] == 1
    assert teacher.card["mean"] == teacher.card["std"] == [0.5, 0.5, 0.5]
    assert (teacher.feature_dim, teacher.head.out_features) == (1280, 1001)
    with torch.inference_mode():
        assert torch.isfinite(teacher.logits(toy_images(2, 64))).all()
