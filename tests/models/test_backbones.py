"""Networks: the small ResNet, CIFAR's, and those that timm and torchvision build from a file."""

import json
import re
import zipfile

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import mobilenet_v3_small

from fopro_lab.models import load_teacher
from fopro_lab.models.backbones import CifarResNet, lite_weights
from tests.conftest import complaint
from tests.models.toys import save_timm, toy_images


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


@pytest.mark.real
@pytest.mark.parametrize("file", ["resnet20-12fca82f.th", "resnet56-4bfd9763.th"])
def test_published_weights_fit_to_the_last_key(shared, file):
    teacher = load_teacher(
        f"cifar-{file.partition('-')[0]}", weights=str(shared / "weights" / file)
    )
    assert teacher.card["coverage"] == 1.0 and teacher.feature_dim == 64


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
        found = model.get_classifier()(teacher.encode(images))
        # 1e-5 is rounding between memory layouts; a head on another pooling is off by 1e-2.
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert teacher.card["coverage"] == 1 and len(teacher.card["head_left_out"]) == 1
    defaults = timm.get_pretrained_cfg(architecture)
    assert teacher.card["mean"] == list(defaults.mean)
    assert teacher.card["std"] == list(defaults.std)
    assert teacher.input_size == 160
    # A network of fixed size resizes, any other takes images as they come.
    assert teacher.resize == (architecture == "test_vit")
    assert teacher.encode(toy_images(2, 64)).shape == (2, teacher.feature_dim)


def test_metadata_of_the_file_is_honoured(tmp_path):
    rules = {"mean": "0.1, 0.2, 0.3", "std": "0.4,0.5,0.6", "input_size": "3,64,64"}
    _, teacher = load(tmp_path, "test_efficientnet", **rules, pad_type="same")
    assert teacher.card["mean"] == [0.1, 0.2, 0.3] and teacher.card["std"] == [0.4, 0.5, 0.6]
    assert teacher.input_size == 64
    _, plain = load(tmp_path, "test_efficientnet")
    kinds = [{type(m).__name__ for m in network.modules()} for network in (teacher, plain)]
    assert "Conv2dSame" in kinds[0] - kinds[1]  # pads as TensorFlow does


def test_a_file_cannot_choose_what_else_timm_does(tmp_path, monkeypatch):
    seen, create = [], timm.create_model
    others = {"checkpoint_path": "/etc/hostname", "cache_dir": "/", "scriptable": "1"}
    save_timm(
        tmp_path / "a.safetensors", "test_resnet", global_pool="avg", pretrained="1", **others
    )
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: seen.append(k) or create(*a, **k))
    load_teacher("timm:test_resnet", weights=str(tmp_path / "a.safetensors"))
    # With `pretrained` timm gives its filter to a loader, which is replaced by none.
    assert seen == [{"pretrained": True, "num_classes": 0, "global_pool": "avg"}]


def test_metadata_that_does_not_suit_is_said(tmp_path):
    path = tmp_path / "a.safetensors"
    save_timm(path, "test_resnet", pad_type="same")
    told = complaint(load_teacher, "timm:test_resnet", weights=str(path))
    assert told.startswith(f"weights: {path}: its metadata does not suit test_resnet (")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("timm:resnet5", "timm has no model 'resnet5'; near: resnet5"),
        ("torchvision:nothing", "torchvision has no classification model 'nothing'"),
        ("torchvision:squeezenet1_1", "torchvision's squeezenet1_1 has no linear classifier to cut "
         "before; build it yourself and use wrap_teacher"),
        *((f"cifar-resnet{depth}", f"expected cifar-resnet with a depth of 6 n + 2, such as "
           f"cifar-resnet20 or cifar-resnet56, got 'cifar-resnet{depth}'")
          for depth in ("21", "x")),
    ],
)  # fmt: skip
def test_unknown_names_are_answered_with_known_ones(tmp_path, name, expected):
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    told = complaint(load_teacher, name, weights=str(tmp_path / "a.safetensors"))
    assert told.startswith(f"teacher: {expected}")


def test_a_torchvision_teacher_is_the_network_cut_before_its_classifier(tmp_path):
    model = mobilenet_v3_small(weights=None, num_classes=5).eval()
    save_file(model.state_dict(), tmp_path / "a")
    teacher = load_teacher("torchvision:mobilenet_v3_small", weights=str(tmp_path / "a"))
    images = toy_images(2, 64)
    with torch.inference_mode():
        expected = model((images - teacher.mean) / teacher.std)
        found = model.classifier[-1](teacher.encode(images))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert teacher.feature_dim == 1024 and teacher.card["coverage"] == 1


def test_the_public_teacher_is_found_in_its_package():
    teacher = load_teacher("efficientnet-lite0")
    assert teacher.card["coverage"] == 1 and teacher.card["head_left_out"] == ["classifier (2)"]
    state = torch.load(lite_weights("efficientnet-lite0"), weights_only=True)
    pairs = zip(teacher.body.state_dict().values(), [*state.values()][:-2], strict=True)
    assert all(torch.equal(own, theirs) for own, theirs in pairs)
    told = complaint(load_teacher, "efficientnet-lite7")
    assert told == (
        "teacher: expected builtin, timm:NAME, torchvision:NAME, cifar-resnetDEPTH, "
        "efficientnet-lite0 (1, 2), moco-v2-resnet50 or module:function, got 'efficientnet-lite7'"
    )


@pytest.mark.real
def test_the_public_teacher_knows_what_it_sees(shared):
    """24 photographs of Caltech-101 by classes of ImageNet; by chance none would be right."""
    classes = {"dalmatian": 251, "grand_piano": 579, "flamingo": 130, "soccer_ball": 805,
               "starfish": 327, "barrel": 427}  # fmt: skip
    teacher, right = load_teacher("efficientnet-lite0"), []
    state = torch.load(lite_weights("efficientnet-lite0"), weights_only=True)
    weight, bias = [*state.values()][-2:]
    with zipfile.ZipFile(shared / "data/natural/caltech101_30.zip") as archive:
        table = pd.read_csv(archive.open("labels.csv"))
        for row in table.groupby("class_name").head(4).itertuples():
            if row.class_name in classes:
                image = Image.open(archive.open(f"images/{row.image}")).convert("RGB")
                pixels = np.array(image.resize((160, 160), Image.Resampling.BICUBIC))
                features = teacher.encode(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
                found = features @ weight.T + bias
                right.append(int(found.argmax()) == classes[row.class_name])
    # Another mean and std, or tensors of one shape in another order, cost more than half of it.
    assert len(right) == 24 and np.mean(right) > 0.6


# One of each family, and the side of its images where another one is quicker.
FAMILIES = {
    "resnet10t": 64, "vit_tiny_patch16_224": 0, "deit_tiny_distilled_patch16_224": 0,
    "swin_s3_tiny_224": 0, "convnext_atto": 64, "tinynet_e": 64, "regnety_002": 64,
    "eva02_tiny_patch14_224": 0, "xcit_nano_12_p16_224": 0, "levit_128s": 0,
}  # fmt: skip


HEADS = ("fc.", "classifier.", "head")  # of them


def load_twice(architecture, **how):
    """Load a teacher from two states of torch's generator: what it does not fill differs."""
    for seed in (1, 2):
        torch.manual_seed(seed)
        yield load_teacher(f"timm:{architecture}", **how)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_every_tensor_of_the_body_comes_from_the_file(tmp_path, architecture):
    path = tmp_path / "a.pth"
    torch.manual_seed(0)
    state = timm.create_model(architecture, num_classes=3).state_dict()
    torch.save({"state_dict": state}, path)
    first, again = load_twice(architecture, weights=str(path))
    side = FAMILIES[architecture] or first.input_size
    with torch.inference_mode():
        found, expected = first.encode(toy_images(1, side)), again.encode(toy_images(1, side))
    assert torch.equal(found, expected) and found.std() > 0
    assert first.card["state_sha256"] == again.card["state_sha256"]
    assert first.card["reference"] == again.card["reference"]
    assert not first.card.keys() & {"resampled", "left_out"}

    last = [name for name in state if not name.startswith(HEADS) and name.endswith("weight")][-1]
    torch.save({name: value for name, value in state.items() if name != last}, path)
    told = complaint(load_teacher, f"timm:{architecture}", weights=str(path))
    assert f"missing: {last}; " in told


def timm_state(architecture, **options):
    return timm.create_model(architecture, **options).state_dict()


def dinov2_with_registers():
    """Facebook's layout: positions with one for the class token, which timm adds to it."""
    state = timm_state("vit_small_patch14_reg4_dinov2", img_size=56)
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.cat([torch.ones(1, 1, 384), state["pos_embed"]], dim=1)
    return state | {"mask_token": torch.ones(1, 384)}


def chunked(state):
    """Blocks in four chunks, as DINOv2 trains them, in a checkpoint of its training."""
    names = {
        k: re.sub(r"blocks\.(\d+)", lambda n: f"blocks.{int(n[1]) // 3}.{n[1]}", k) for k in state
    }
    backbone = {f"backbone.{names[k]}": value for k, value in state.items()}
    return {"teacher": backbone | {"dino_head.mlp.0.weight": torch.ones(2, 2)}, "iteration": 9}


def dinov3(bias):
    """Facebook's layout, with the biases that some of its sizes have."""
    state = timm_state("vit_small_patch16_dinov3", img_size=64)
    for old, new in {"reg_token": "storage_tokens", "gamma_": "ls"}.items():
        state = {k.replace(old, new): v for k, v in state.items()}
    state = {re.sub(r"ls(\d)$", r"ls\1.gamma", k): v for k, v in state.items()}
    for block in range(12):
        state[f"blocks.{block}.attn.qkv.bias"] = torch.full((1152,), bias)
        state[f"blocks.{block}.attn.qkv.bias_mask"] = torch.ones(1152)
    return state | {"rope_embed.periods": torch.ones(16), "mask_token": torch.ones(1, 384)}


DINO, VIT = "vit_small_patch14_reg4_dinov2", "vit_tiny_patch16_224"
GREY = "conv1.weight (64, 1, 7, 7) for (64, 3, 7, 7); is it this architecture?"
LAYOUTS = {
    "another image size": (VIT, lambda: timm_state(VIT, img_size=64), {"resampled": [
        "pos_embed (1, 17, 192) to (1, 197, 192)"]}),
    "DINOv2 with registers": (DINO, dinov2_with_registers, {"left_out": ["mask_token"]}),
    "DINOv2 in training": (DINO, lambda: chunked(dinov2_with_registers()), {
        "prefix": "teacher.backbone.", "left_out": ["mask_token", "teacher.dino_head"]}),
    "DINOv3": ("vit_small_patch16_dinov3", lambda: dinov3(0), {}),
    "DINOv3 with biases": ("vit_small_patch16_dinov3_qkvb", lambda: dinov3(1.0), {}),
    "masked autoencoder": (VIT, lambda: {"model": timm_state(VIT) | {
        "decoder_blocks.0.weight": torch.ones(2)}}, {"left_out": ["decoder_blocks"]}),
    "grey stem": ("resnet18", lambda: timm_state("resnet18", in_chans=1), GREY),
    "registers in a network without": ("vit_small_patch14_dinov2", dinov2_with_registers,
                                       "place in the network: register_tokens"),
    "biases in a network without": ("vit_small_patch16_dinov3", lambda: dinov3(1.0),
                                    "place in the network: blocks.0.attn.qkv.bias"),
    "a second class token": (VIT, lambda: timm_state("deit_tiny_distilled_patch16_224"),
                             "place in the network: dist_token"),
}  # fmt: skip


@pytest.mark.parametrize("case", LAYOUTS)
def test_published_layouts_load_whole_or_are_refused(tmp_path, case):
    architecture, layout, expected = LAYOUTS[case]
    torch.save(layout(), tmp_path / "a.pth")
    how = {"weights": str(tmp_path / "a.pth"), "size": 112 if "dino" in architecture else 0}
    if isinstance(expected, str):
        assert expected in complaint(load_teacher, f"timm:{architecture}", **how)
        return
    first, again = (teacher.card for teacher in load_twice(architecture, **how))
    assert first == again
    assert {key: first[key] for key in expected} == expected


def folder_of(path, config, **preprocessor):
    save_timm(path / "model.safetensors", "test_vit")
    (path / "config.json").write_text(json.dumps(config))
    if preprocessor:
        (path / "preprocessor_config.json").write_text(json.dumps(preprocessor))


RULES = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}


@pytest.mark.parametrize(
    ("config", "preprocessor"),
    [
        ({"architecture": "test_vit", "pretrained_cfg": RULES | {
            "input_size": [3, 96, 96], "interpolation": "bicubic", "crop_pct": 0.9}}, {}),
        ({}, {"image_mean": RULES["mean"], "image_std": RULES["std"], "resample": 3,
              "size": {"height": 96, "width": 96}}),
    ],
)  # fmt: skip
def test_a_folder_says_how_its_images_are_prepared(tmp_path, capsys, config, preprocessor):
    folder_of(tmp_path, config, **preprocessor)
    teacher = load_teacher("timm:test_vit", weights=str(tmp_path))
    assert {key: teacher.card[key] for key in RULES} == RULES
    assert (teacher.input_size, teacher.interpolation) == (96, "bicubic")
    assert set(teacher.card["rules_of"].values()) == {"file"}
    assert (
        "mean [0.1, 0.2, 0.3] by its file, [0.5, 0.5, 0.5] by its arch" in capsys.readouterr().err
    )
    mine = load_teacher("timm:test_vit", weights=str(tmp_path), mean=(0.5, 0.5, 0.5))
    assert mine.card["rules_of"]["mean"] == "given" and mine.card["mean"] == [0.5] * 3


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architecture": "resnet50"}, "is of resnet50, not of timm:test_vit"),
        ({"model_args": {"act_layer": "relu", "img_size": 96}}, "other options (act_layer)"),
    ],
)
def test_a_folder_of_another_network_is_refused(tmp_path, config, expected):
    folder_of(tmp_path, config)
    assert expected in complaint(load_teacher, "timm:test_vit", weights=str(tmp_path))


@pytest.mark.real
def test_the_published_mobilenet_loads_whole(shared):
    path = shared / "weights/mobilenetv2_100_imagenet_bncal.safetensors"
    teacher = load_teacher("timm:mobilenetv2_100", weights=str(path))
    assert teacher.card["coverage"] == 1
    assert teacher.card["mean"] == teacher.card["std"] == [0.5, 0.5, 0.5]
    assert teacher.feature_dim == 1280
    with torch.inference_mode():
        assert torch.isfinite(teacher.encode(toy_images(2, 64))).all()
