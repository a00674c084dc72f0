import math

import pytest
import torch
from torch import nn

from fopro_lab.errors import InputError
from fopro_lab.models import build_student
from fopro_lab.training.objectives import (
    TaskHead,
    batch_norm_inputs,
    confidence_loss,
    disagreement_loss,
    identity_loss,
    statistics_distance,
    task_loss,
)
from tests.models.toys import norm_teacher, pictures, pool_teacher


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_statistics(collected):
    """(m - M)^2 / V + (sqrt(v / V) - 1)^2, number by number; mean over channels, then layers."""
    layers = []
    for layer, values in collected:
        channels = []
        for c in range(values.shape[1]):
            numbers = values[:, c].flatten().tolist()
            mean = sum(numbers) / len(numbers)
            variance = sum((x - mean) ** 2 for x in numbers) / len(numbers) + layer.eps
            expected, scale = float(layer.running_mean[c]), float(layer.running_var[c]) + layer.eps
            channels.append((mean - expected) ** 2 / scale + (math.sqrt(variance / scale) - 1) ** 2)
        layers.append(sum(channels) / len(channels))
    return sum(layers) / len(layers)


def slow_confidence(logits):
    """Mean entropy minus entropy of the mean, by loops over probabilities."""
    rows = []
    for row in logits.tolist():
        weights = [math.exp(a) for a in row]
        rows.append([w / sum(weights) for w in weights])
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    each = -sum(p * math.log(p) for row in rows for p in row) / len(rows)
    return each + sum(p * math.log(p) for p in mean)


def toy_layers():
    """Two layers of other widths and scales, with inputs that do not fit them."""
    collected = []
    for seed, channels in ((0, 2), (1, 5)):
        layer = nn.BatchNorm2d(channels).double()
        layer.running_mean = 10 * normal(channels, seed=seed)
        layer.running_var = normal(channels, seed=seed + 2).exp()
        collected.append((layer, 3 * normal(4, channels, 3, 2, seed=seed + 4) + 1))
    return collected


def test_statistics_distance_equals_the_formula():
    collected = toy_layers()
    # The unbiased variance (24 pixels a channel) would be off by 1e-2 of the spread's part.
    assert abs(float(statistics_distance(collected)) / slow_statistics(collected) - 1) < 1e-12


def test_statistics_distance_of_fitting_statistics_is_zero():
    values = normal(4, 3, 5, 5)
    layer = nn.BatchNorm2d(3).double()
    layer.running_mean = values.mean(dim=(0, 2, 3))
    layer.running_var = values.var(dim=(0, 2, 3), correction=0)
    assert float(statistics_distance([(layer, values)])) < 1e-20


def test_statistics_distance_does_not_know_the_unit():
    # Scaling a layer's input and its running statistics alike changes nothing but eps's share.
    (layer, values), _ = toy_layers()
    before = statistics_distance([(layer, values)])
    layer.running_mean, layer.running_var = layer.running_mean * 1e3, layer.running_var * 1e6
    torch.testing.assert_close(
        statistics_distance([(layer, values * 1e3)]), before, rtol=1e-4, atol=0
    )


def test_statistics_distance_has_the_right_gradient():
    (layer, values), _ = toy_layers()
    values.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: statistics_distance([(layer, x)]), (values,))


def test_statistics_distance_of_a_dead_channel_has_a_finite_gradient():
    layer = nn.BatchNorm2d(2)
    assert layer.running_var is not None
    layer.running_var.zero_()
    values = torch.zeros(2, 2, 3, 3, requires_grad=True)
    statistics_distance([(layer, values)]).backward()
    assert torch.isfinite(values.grad).all()


def test_batch_norm_inputs_are_what_each_layer_sees():
    teacher = norm_teacher()
    with batch_norm_inputs(teacher) as collected:
        teacher.encode(pictures())
    assert [layer for layer, _ in collected] == teacher.batch_norms()
    normalised = (pictures() - teacher.mean) / teacher.std
    first = teacher.body[0](normalised)
    torch.testing.assert_close(collected[0][1], first)
    torch.testing.assert_close(collected[1][1], teacher.body[:4](normalised))


def hooks(teacher):
    return sum(len(module._forward_pre_hooks) for module in teacher.modules())


def test_batch_norm_inputs_leave_no_hook_behind():
    teacher = norm_teacher()
    with batch_norm_inputs(teacher) as collected:
        assert hooks(teacher) == 2
    assert hooks(teacher) == 0
    teacher.encode(pictures())
    assert collected == []
    with pytest.raises(KeyError), batch_norm_inputs(teacher):
        raise KeyError
    assert hooks(teacher) == 0


def test_batch_norm_inputs_need_batch_norms():
    with pytest.raises(InputError) as caught, batch_norm_inputs(pool_teacher()):
        pass
    assert str(caught.value) == (
        "objective 'statistics': teacher wrapped has no batch norm to compare with; "
        "set objectives.statistics=0"
    )


def test_confidence_equals_the_formula():
    logits = 2 * normal(6, 5)
    assert abs(float(confidence_loss(logits)) - slow_confidence(logits)) < 1e-12
    assert torch.autograd.gradcheck(confidence_loss, (logits.requires_grad_(),))


def test_confidence_is_low_only_for_sure_and_diverse_predictions():
    sure = 1000 * torch.eye(4)
    assert abs(float(confidence_loss(sure)) + math.log(4)) < 1e-6
    assert abs(float(confidence_loss(sure[[0, 0, 0]]))) < 1e-6  # collapsed to one class
    assert abs(float(confidence_loss(torch.zeros(3, 4)))) < 1e-6  # not sure of any
    # Minus a mutual information lies in [-log K, 0] for any logits.
    for seed in range(20):
        value = float(confidence_loss(10 * normal(5, 4, seed=seed)))
        assert -math.log(4) - 1e-12 <= value <= 1e-12


def test_task_equals_balanced_softmax_of_standardised_features():
    features, labels = 100 * normal(6, 3) + 7, torch.tensor([0, 1, 1, 0, 1, 0])
    counts = torch.tensor([90, 10])
    head = TaskHead(3, classes=2).double()
    columns = []
    for column in features.T.tolist():
        mean = sum(column) / 6
        variance = sum((x - mean) ** 2 for x in column) / 6
        columns.append([(x - mean) / math.sqrt(variance + 1e-5) for x in column])
    weight, bias = head.linear.weight.tolist(), head.linear.bias.tolist()
    expected = 0.0
    for i, label in enumerate(labels.tolist()):
        logits = [
            sum(w * column[i] for w, column in zip(weight[k], columns, strict=True)) + bias[k]
            for k in range(2)
        ]
        weights = [n * math.exp(a) for n, a in zip(counts.tolist(), logits, strict=True)]
        expected -= math.log(weights[label] / sum(weights)) / 6
    loss = task_loss(features, head=head, labels=labels, class_counts=counts)
    # Features that are not standardised would be off by more than 1.
    assert abs(float(loss.detach()) - expected) < 1e-12


def test_task_heads_depend_on_their_seed_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, two, other = (TaskHead(4, classes=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.linear.weight, two.linear.weight)
    assert not torch.equal(one.linear.weight, other.linear.weight)


def test_disagreement_is_minus_the_distance_and_leaves_the_student_alone():
    student = build_student("small", classes=2, teacher_dim=4).eval()
    features = normal(3, 4).float().requires_grad_()
    loss = disagreement_loss(student, pictures(3, 32), features)
    q = student(pictures(3, 32)).projection.detach().double()
    f = features.detach().double()
    unit = (q / q.norm(dim=1, keepdim=True) - f / f.norm(dim=1, keepdim=True)).square()
    assert abs(float(loss.detach()) + float(unit.sum(1).mean())) < 1e-5
    loss.backward()
    assert features.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in student.parameters())


def test_disagreement_needs_a_projector():
    with pytest.raises(InputError) as caught:
        disagreement_loss(build_student("small", classes=2), pictures(1, 32), torch.rand(1, 4))
    assert str(caught.value) == "objective 'disagreement': the student has no projector"


def test_identity_is_the_mean_square_of_the_log_gain():
    log_gain = normal(3, 4, 5)
    expected = sum(x**2 for x in log_gain.flatten().tolist()) / 60
    assert abs(float(identity_loss(log_gain.exp())) - expected) < 1e-12
    assert float(identity_loss(torch.full((3,), 2.0))) == pytest.approx(math.log(2) ** 2)
    # Doubling and halving are equally far from leaving the picture alone.
    torch.testing.assert_close(identity_loss(log_gain.exp()), identity_loss((-log_gain).exp()))
    gain = log_gain.exp().requires_grad_()
    assert torch.autograd.gradcheck(identity_loss, (gain,))
