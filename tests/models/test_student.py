import torch

from fopro_lab.models import build_student
from tests.conftest import complaint
from tests.models.toys import toy_images


def test_outputs_are_those_of_the_formula():
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


def test_a_baseline_has_neither_projector_nor_second_head():
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
    assert told == "student: expected one of 'small', 'resnet18', got 'resnet'"
    told = complaint(build_student, name="small", classes=2, weights="no.pth")
    assert told == "weights: no.pth: no such file"
