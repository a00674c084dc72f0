"""Frozen teachers: wrapped, loaded by name, and made faster."""

import copy
import json

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.models import resnet50

from fopro_lab.config import TeacherConfig
from fopro_lab.data.fetch import find_source, note_complete
from fopro_lab.io import sha256_file
from fopro_lab.models import Teacher, choose_device, load_from, load_teacher, wrap_teacher
from fopro_lab.models.teacher import BUILTIN, quick_teacher
from tests.conftest import complaint, refuses
from tests.models.toys import RULES, Pool, norm_teacher, pool_teacher, save_timm, toy_images

MEAN, STD = RULES["mean"], RULES["std"]


def wrap(module, **settings):
    return wrap_teacher(module, **RULES | {"input_size": 8, "feature_dim": 12} | settings)


def test_encode_normalises_inside_once():
    images = toy_images(2, 8).double()
    means = images.view(2, 3, 2, 4, 2, 4).mean(dim=(3, 5)).flatten(2)  # of each cell
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None] for values in (MEAN, STD))
    found = pool_teacher().encode(images.float()).double()
    # 1e-6 is rounding; std 0.2501 in place of 0.25 would be off by 1e-4.
    expected = ((means - mean) / std).flatten(1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_teacher_never_trains():
    teacher = norm_teacher()
    student_and_teacher = nn.ModuleList([nn.Linear(1, 1), teacher])
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student_and_teacher.train()
    assert teacher.train() is teacher
    assert not any(module.training for module in teacher.modules())
    images = toy_images().requires_grad_()
    teacher.encode(images).square().sum().backward()
    assert images.grad is not None and images.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(teacher.state_dict()[name], value) for name, value in before.items())


def test_resizing_is_antialiased():
    # Each fourth column is white: shrunk fourfold that is a quarter of white everywhere. Without
    # antialias no white column would be seen at all; 0.02 is what the filter loses at the border.
    stripes = torch.zeros(1, 3, 32, 32)
    stripes[..., ::4] = 1
    teacher = pool_teacher(side=8, resize=True)
    seen = teacher.encode(stripes).view(3, 4) * teacher.std[:, 0] + teacher.mean[:, 0]
    assert (seen - 0.25).abs().max() < 0.02
    assert not torch.equal(pool_teacher(side=8).encode(stripes), teacher.encode(stripes))


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 1, 8, 8)])
def test_encode_refuses_other_shapes(shape):
    expected = f"images: expected (B, 3, H, W), got {shape}"
    assert complaint(pool_teacher().encode, torch.zeros(shape)).startswith(expected)


def test_wrap_teacher_writes_a_card():
    assert wrap(norm_teacher().body, feature_dim=5, name="mine").card == {
        "name": "mine",
        "input_size": 8,
        "resize": False,
        "interpolation": "bilinear",
        "mean": list(MEAN),
        "std": list(STD),
        "feature_dim": 5,
        "batch_norms": 2,
        "parameters": (27 + 1) * 6 + 2 * 6 + (54 + 1) * 5 + 2 * 5,
    }


class Zero(nn.Module):
    """Features of weights that are all zero."""

    def forward(self, images):
        return images * 0


class Dropping(nn.Module):
    """Dropout that is forgotten to be off in evaluation mode."""

    def forward(self, features):
        return nn.functional.dropout(features)


@pytest.mark.parametrize(
    ("module", "settings", "expected"),
    [
        (
            Pool(),
            {"intput_size": 8},
            "wrap_teacher: got an unexpected keyword argument 'intput_size'",
        ),
        (
            nn.Sequential(Pool(), Dropping()),
            {},
            "teacher wrapped: its features of one image differ",
        ),
        (Pool(), {"feature_dim": 13}, "teacher wrapped: expected features (1, 13) of a batch of 1"),
        (nn.LSTM(8, 4), {}, "teacher wrapped: cannot encode images of 8 px (ValueError: LSTM: "),
        (nn.Sequential(Pool(), Zero()), {}, "teacher wrapped: its features of two different image"),
        (Pool(), {"std": [58.4, 57.1, 57.4]}, "mean, std: expected in units of [0, 1], got "),
    ],
)
def test_wrap_teacher_says_what_is_wrong(module, settings, expected):
    assert complaint(wrap, module, **settings).startswith(expected)


@pytest.fixture(scope="module")
def builtin():
    return load_teacher("builtin")


def test_the_builtin_is_whole_small_and_has_a_card_of_data_recipe_and_accuracy(builtin):
    path = BUILTIN / "builtin.safetensors"
    assert path.stat().st_size < 4_000_000
    assert builtin.card["coverage"] == 1
    assert builtin.card["sha256"] == sha256_file(path)
    assert len(builtin.batch_norms()) == builtin.card["batch_norms"] > 0
    assert builtin.encode(toy_images(2, 64)).shape == (2, builtin.feature_dim)
    card = builtin.card
    assert card["seed"] == card["recipe"]["seed"]
    assert sum(part["classes"] for part in card["data"]) == card["classes"]
    for part in card["data"]:
        held_out = part["held_out"]
        assert held_out["images"] > 100 and held_out["chance"] == 1 / card["classes"]
        assert held_out["top1"] > 10 * held_out["chance"]
    json.dumps(card)  # it goes into run folders and pages


@pytest.mark.real
def test_the_builtin_reaches_the_accuracy_on_its_card(builtin, shared):
    # All 300 held-out images of Caltech-101, recomputed from the archive.
    from tools.make_builtin import read_archive

    told = builtin.card["data"][1]
    archive = read_archive(shared / "data/natural" / told["archive"], sizes=(32,), first_label=200)
    assert archive.sha256 == told["sha256"]
    images = archive.pyramid[0][archive.held_out].float() / 255
    state = load_file(str(BUILTIN / "builtin.safetensors"))
    with torch.inference_mode():
        logits = builtin.encode(images) @ state["fc.weight"].float().T + state["fc.bias"].float()
        right = logits.argmax(1) == archive.labels[archive.held_out]
    # One image more or less may flip by rounding on another processor.
    assert abs(int(right.sum()) - told["held_out"]["top1"] * len(right)) <= 1.5


def test_load_teacher_says_what_is_wrong():
    refuses("^teacher: expected builtin, timm:NAME, .*, got 'resnet18'$", load_teacher, "resnet18")
    assert complaint(load_teacher, "timm:test_resnet") == (
        "weights: expected a file with the weights of timm:test_resnet, got none; nothing is "
        "downloaded, so fetch them from their publisher and give the path"
    )


def test_the_published_teacher_finds_the_weights_that_were_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("FOPRO_DATA", str(tmp_path))
    assert complaint(load_teacher, "moco-v2-resnet50") == (
        "weights: expected a file with the weights of moco-v2-resnet50, got none; fetch them with "
        "`fopro data fetch moco-v2`, or give the path"
    )
    source = find_source("moco-v2")
    place = tmp_path / source.folder
    place.mkdir()
    network = resnet50(num_classes=128)
    state = {f"module.encoder_q.{name}": value for name, value in network.state_dict().items()}
    state = {name: value.half() for name, value in state.items() if ".fc." not in name}
    state["module.encoder_q.fc.0.weight"] = torch.ones(9, 9)  # a projector, not a classifier
    torch.save({"state_dict": state, "arch": "resnet50"}, place / source.files[0].name)
    note_complete(place, source)
    teacher = load_teacher("moco-v2-resnet50")
    assert (teacher.feature_dim, teacher.card["coverage"]) == (2048, 1.0)
    assert teacher.card["weights"] == source.files[0].name


def test_settings_override_the_weights_own_and_a_size_that_does_not_fit_is_said(tmp_path):
    save_timm(tmp_path / "a.safetensors", "test_resnet", mean="0.1,0.2,0.3")
    weights = str(tmp_path / "a.safetensors")
    options = {"teacher_size": 32, "teacher_mean": (0.4, 0.5, 0.6)}
    teacher = load_from(TeacherConfig(teacher="timm:test_resnet", weights=weights, **options))
    assert teacher.card["mean"] == [0.4, 0.5, 0.6] and teacher.card["std"] == [0.5, 0.5, 0.5]
    assert (teacher.input_size, teacher.resize, teacher.name) == (32, True, "timm:test_resnet")
    save_timm(tmp_path / "a.safetensors", "test_vit")
    told = complaint(
        load_teacher, "timm:test_vit", weights=str(tmp_path / "a.safetensors"), size=50
    )
    assert told.startswith(
        "teacher timm:test_vit: cannot encode images of 50 px (AssertionError: Input height (50) "
        "should be divisible by patch size (16).); it has to map images"
    )


# The fast form of a teacher, against the plain one in float64.
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


def teacher_of(kind: str) -> Teacher:
    if kind == "builtin":
        return load_teacher("builtin")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(kind, pretrained=False, num_classes=0)
    return wrap_teacher(lively(network), **RULES, input_size=SIDE)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).abs().max() / expected.abs().max())


# Plain, timm's norm with activation, timm's padded convolution and squeeze-excitation.
@pytest.mark.parametrize("kind", ["builtin", "mobilenetv2_050", "tf_efficientnet_b0"])
def test_folded_features_are_those_of_the_slow_form(kind):
    teacher = teacher_of(kind)
    said: list[str] = []
    before = copy.deepcopy(teacher.state_dict())
    quick = quick_teacher(teacher, tell=said.append)
    assert not said and teacher.batch_norms() and not quick.batch_norms()
    slow = copy.deepcopy(teacher).double()
    with torch.inference_mode():
        expected = slow.encode(toy_images(4, SIDE).double())
        # Rounding alone: the plain float32 form is as far off. An epsilon of 1e-3 in place of
        # 1e-5 would be off by over 1e-3.
        assert relative(quick.encode(toy_images(4, SIDE)), expected) < 3e-5
        assert relative(teacher.encode(toy_images(4, SIDE)), expected) < 3e-5
    assert all(torch.equal(teacher.state_dict()[name], value) for name, value in before.items())
    assert not quick.training and not any(p.requires_grad for p in quick.parameters())


class Tangled(nn.Module):
    """A convolution whose norm may not be folded into it, as its output is read past the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 3, 3, padding=1), lively(nn.BatchNorm2d(3))
        self.twice, self.plain = nn.Conv2d(3, 3, 3, padding=1), lively(nn.BatchNorm2d(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        shared = self.plain(self.twice(self.twice(images)))
        raw = self.first(shared)
        return (self.norm(raw) + raw).mean(dim=(2, 3))


def test_what_may_not_be_folded_is_left_and_said():
    said: list[str] = []
    teacher = wrap_teacher(Tangled(), **RULES, input_size=SIDE)
    quick = quick_teacher(teacher, tell=said.append)
    with torch.inference_mode():
        assert torch.equal(quick.encode(toy_images(4, SIDE)), teacher.encode(toy_images(4, SIDE)))
    # Nor may one of a convolution that is passed twice.
    assert len(said) == 1 and said[0].startswith("teacher: batch norms not folded (features would")


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [(torch.bfloat16, 1e-4, 0.05), (torch.float16, 1e-5, 0.005)]
)
def test_half_precision_gives_float_features_that_are_near(dtype, low, high):
    teacher = teacher_of("resnet18")
    quick = quick_teacher(teacher, dtype=dtype)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = quick.encode(toy_images(4, SIDE))
    expected = teacher.encode(toy_images(4, SIDE)).double()
    assert found.dtype == torch.float32
    # bfloat16 rounds at 0.004, some twenty times on the way; mean and std rounded with the
    # images, not before them, would go unseen, a channel left out would be off by over 0.1.
    # float16 rounds at 0.0005.
    assert low < relative(found, expected) < high


def test_the_device_is_chosen_once(monkeypatch):
    assert choose_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device().type == "cpu"
    told = complaint(choose_device, "cuda")
    assert told == "device: expected a GPU for 'cuda', torch finds none; use cpu or auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device().type == choose_device("cuda").type == "cuda"
    assert load_from(TeacherConfig(), device="cpu").mean.device.type == "cpu"
