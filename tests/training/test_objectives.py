import math

import pytest
import torch

from fopro_lab.errors import InputError
from fopro_lab.models import build_student
from fopro_lab.training.losses import (
    TaskHead,
    confidence_loss,
    disagreement_loss,
    identity_loss,
    task_loss,
)
from tests.models.toys import toy_images


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_confidence(logits):
    """Mean entropy minus entropy of the mean, by loops over probabilities."""
    rows = []
    for row in logits.tolist():
        weights = [math.exp(a) for a in row]
        rows.append([w / sum(weights) for w in weights])
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    each = -sum(p * math.log(p) for row in rows for p in row) / len(rows)
    return each + sum(p * math.log(p) for p in mean)


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
        standard = [(x - mean) / math.sqrt(variance + 1e-5) for x in column]
        columns.append([x / math.sqrt(3) for x in standard])  # three features
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
    # Features that are not standardised would be off by more than 1, undivided ones by 0.1.
    assert abs(float(loss.detach()) - expected) < 1e-12


def test_a_head_knows_the_scale_of_features_after_a_few_batches():
    head = TaskHead(3, classes=2)
    for seed in range(4):
        head(1e-3 * normal(32, 3, seed=seed).float() + 5)
    mean, spread = head.standardise.running_mean, head.standardise.running_var.sqrt()
    torch.testing.assert_close(mean, torch.full((3,), 5.0), atol=5e-4, rtol=0)
    # At torch's fixed momentum the spread would still be 0.8.
    torch.testing.assert_close(spread, torch.full((3,), 1e-3), atol=2e-4, rtol=0)


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
    loss = disagreement_loss(student, toy_images(3, 32), features)
    q = student(toy_images(3, 32)).projection.detach().double()
    f = features.detach().double()
    unit = (q / q.norm(dim=1, keepdim=True) - f / f.norm(dim=1, keepdim=True)).square()
    assert abs(float(loss.detach()) + float(unit.sum(1).mean())) < 1e-5
    loss.backward()
    assert features.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in student.parameters())


def test_disagreement_needs_a_projector():
    with pytest.raises(InputError) as caught:
        disagreement_loss(build_student("small", classes=2), toy_images(1, 32), torch.rand(1, 4))
    assert str(caught.value) == "objective 'disagreement': the student has no projector"


def test_identity_is_the_mean_square_of_the_log_gain():
    log_gain = normal(3, 4, 5)
    expected = sum(x**2 for x in log_gain.flatten().tolist()) / 60
    assert abs(float(identity_loss(log_gain.exp())) - expected) < 1e-12
    assert float(identity_loss(torch.full((3,), 2.0))) == pytest.approx(math.log(2) ** 2)
    # Doubling and halving are equally far from leaving the image alone.
    torch.testing.assert_close(identity_loss(log_gain.exp()), identity_loss((-log_gain).exp()))
    gain = log_gain.exp().requires_grad_()
    assert torch.autograd.gradcheck(identity_loss, (gain,))
