"""Networks: the small ResNet, CIFAR's, and those that timm and torchvision build from a file."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from fopro_lab.errors import InputError
from fopro_lab.models import load_teacher
from fopro_lab.models.backbones import CifarResNet
from tests.models.toys import message, save_timm, toy_images


def written_out(state: dict[str, Tensor], images: Tensor, *, blocks: int) -> Tensor:
    """The CIFAR ResNet of He et al. with option A shortcuts, in functions: 64 features."""

    def layer(x: Tensor, name: str, number: str, stride: int = 1) -> Tensor:
        x = functional.conv2d(x, state[f"{name}conv{number}.weight"], stride=stride, padding=1)
        kept = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(state[f"{name}bn{number}.{key}"] for key in kept))

    x = layer(images, "", "1").relu()
    for stage in (1, 2, 3):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}.", 2 if stage > 1 and block == 0 else 1
            hidden = layer(layer(x, name, "1", stride).relu(), name, "2")
            more = (hidden.shape[1] - x.shape[1]) // 2
            x = functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, more, more))
            x = (hidden + x).relu()
    return x.mean(dim=(2, 3))


def test_cifar_resnet_equals_the_layout_written_out():
    torch.manual_seed(0)
    network = CifarResNet(20).double().eval()
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    network.linear = nn.Identity()
    images = torch.randn(2, 3, 33, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = written_out(network.state_dict(), images, blocks=3)
        # Exact but for the order of sums; a shortcut shifted by a channel differs by 1e-1.
        torch.testing.assert_close(network(images), expected, rtol=1e-12, atol=1e-12)


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
