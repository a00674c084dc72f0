import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from fopro_lab.models import build_student
from tests.conftest import complaint
from tests.models.toys import toy_images


def test_outputs_are_those_of_the_formula_and_a_baseline_has_two_less():
    # a = W h, q = P(h), b = V q: the second head reads the projection, not the features.
    student = build_student("small", classes=5, teacher_dim=7).eval()
    output = student(toy_images(3, 32))
    assert [tuple(value.shape) for value in output] == [(3, 96), (3, 5), (3, 7), (3, 5)]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (toy_images(3, 32) - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    assert torch.equal(output.features, student.backbone(normalised))
    assert torch.equal(output.logits, student.classifier(output.features))
    assert torch.equal(output.projection, student.projector(output.features))
    assert torch.equal(output.second_logits, student.second_classifier(output.projection))
    student = build_student("small", classes=5)
    assert student(toy_images(2, 32))[2:] == (None, None)
    assert not any(name.startswith(("projector", "second")) for name in student.state_dict())


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = build_student("small", classes=5, teacher_dim=7, seed=3).state_dict()
    torch.manual_seed(2)
    again = build_student("small", classes=5, teacher_dim=7, seed=3).state_dict()
    other = build_student("small", classes=5, teacher_dim=7, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["backbone.conv1.weight"], other["backbone.conv1.weight"])
    # A comparison of methods must not be one of initial weights.
    baseline = build_student("small", classes=5, seed=3).state_dict()
    assert all(torch.equal(first[name], value) for name, value in baseline.items())


def test_a_backbone_can_be_started_from_a_file(tmp_path):
    source = build_student("small", classes=5, seed=1)
    torch.save({"state_dict": source.backbone.state_dict()}, tmp_path / "a.pth")
    student = build_student("small", classes=3, seed=2, weights=str(tmp_path / "a.pth"))
    assert torch.equal(student.backbone.conv1.weight, source.backbone.conv1.weight)
    told = complaint(build_student, name="resnet18", classes=3, weights=str(tmp_path / "a.pth"))
    assert told.startswith(f"weights: {tmp_path / 'a.pth'}: ")
    assert told.endswith("is it this architecture?")


def test_wrong_input_is_said():
    assert complaint(build_student, name="small", classes=1) == "classes: expected 2 or more, got 1"
    told = complaint(build_student, name="resnet", classes=2)
    assert told == "student: expected small, resnet18 or timm:NAME, got 'resnet'"
    told = complaint(build_student, name="timm:mobilenet_small", classes=2)
    assert told.startswith("student: timm has no model 'mobilenet_small'; near: mobilenet")
    told = complaint(build_student, name="small", classes=2, weights="no.pth")
    assert told == "weights: no.pth: no such file"


# --- networks of timm, and what a student costs ---


def counted_by_hand(student, side):
    """Multiply-adds of every convolution and linear layer, by their shapes, of one image."""
    macs = []

    def count(layer, inputs, output):
        if isinstance(layer, nn.Conv2d):
            macs.append(output[0].numel() * layer.weight[0].numel())
        elif isinstance(layer, nn.Linear):
            macs.append(layer.weight.numel())

    for layer in student.modules():
        layer.register_forward_hook(count)
    student.eval().classify(torch.zeros(1, 3, side, side))
    return sum(macs)


@pytest.mark.parametrize("name", ["small", "resnet18", "timm:mobilenetv3_small_100"])
def test_costs_are_those_of_what_classifies_an_image(name):
    student = build_student(name, classes=5, teacher_dim=7, image_size=32)
    assert student.training and student.card["image_size"] == 32
    assert student.card["macs"] == counted_by_hand(student, 32)
    used = [*student.backbone.parameters(), *student.classifier.parameters()]
    assert student.card["parameters"] == sum(value.numel() for value in used)


def test_costs_are_the_published_ones():
    # 2.5 M parameters and 56 M multiply-adds: MobileNetV3-Small of Howard et al., ICCV 2019.
    card = build_student("timm:mobilenetv3_small_100", classes=1000, image_size=224).card
    assert (card["parameters"], card["macs"] // 10**6) == (2_542_856, 56)
    # 4 bytes for each parameter and each of the 24,194 running means, variances and counters.
    assert 10.17 < card["megabytes"] < 10.27


def test_a_network_of_timm_starts_from_a_file_and_sees_images_by_its_rules(tmp_path):
    source = timm.create_model("test_resnet", num_classes=9)
    rules = {"mean": "0.4,0.4,0.4", "std": "0.25,0.25,0.25"}
    save_file(source.state_dict(), tmp_path / "a.safetensors", metadata=rules)
    path = str(tmp_path / "a.safetensors")
    student = build_student("timm:test_resnet", classes=3, weights=path, image_size=32).eval()
    source.reset_classifier(0)
    expected = source.eval()((toy_images(2, 32) - 0.4) / 0.25)
    torch.testing.assert_close(student(toy_images(2, 32)).features, expected, rtol=0, atol=1e-5)
    # Built again without the file, by what its card says, it sees the same.
    again = build_student("timm:test_resnet", classes=3, rules=student.card["rules"]).eval()
    again.load_state_dict(student.state_dict())
    assert torch.equal(again.classify(toy_images(2, 32)), student.classify(toy_images(2, 32)))
    kernel = "layer1.0.conv1.weight"
    other = build_student("timm:test_resnet", classes=3, seed=1).state_dict()
    assert not torch.equal(other[f"backbone.model.{kernel}"], source.get_parameter(kernel))
    told = complaint(build_student, name="timm:test_vit", classes=3, weights=path)
    assert told.endswith("is it this architecture?")


@pytest.mark.parametrize("name", ["timm:inception_v3", "timm:vit_tiny_patch16_224"])
def test_a_network_that_cannot_take_the_images_is_refused_in_one_line(name):
    told = complaint(build_student, name=name, classes=3, image_size=40)
    assert told.startswith(f"student {name}: cannot take images of 40 px (") and "\n" not in told
    assert told.endswith("to a side that it takes, or choose another student")


def test_a_network_of_fixed_size_is_built_for_the_images_there_are():
    student = build_student("timm:test_vit", classes=3, image_size=32)
    assert student.eval().classify(toy_images(2, 32)).shape == (2, 3)
