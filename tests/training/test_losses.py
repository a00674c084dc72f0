"""The EKD loss and the terms of the prompt, against independent float64 formulas."""

import math

import pytest
import torch

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.models import StudentOutput, build_student
from fopro_lab.training import balanced_softmax_loss, cosine_distance, distillation_loss
from fopro_lab.training.losses import TaskHead, confidence_loss, disagreement_loss, identity_loss
from tests.models.toys import toy_images

COUNTS = torch.tensor([6705, 40, 3, 1])
LABELS = torch.tensor([0, 3, 1, 3, 2])


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_balanced_softmax(logits, labels, counts):
    """Mean of -log(n_y exp(a_y) / sum_k n_k exp(a_k)), image by image."""
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        weights = [n * math.exp(a) for a, n in zip(row, counts.tolist(), strict=True)]
        total -= math.log(weights[label] / sum(weights))
    return total / len(logits)


def slow_distance(projection, features):
    """Mean of |q / |q| - f / |f||^2, image by image: another road to 2 - 2 cos."""
    total = 0.0
    for q, f in zip(projection.tolist(), features.tolist(), strict=True):
        length_q, length_f = math.hypot(*q), math.hypot(*f)
        total += sum((a / length_q - b / length_f) ** 2 for a, b in zip(q, f, strict=True))
    return total / len(projection)


def test_balanced_softmax_equals_the_formula():
    logits = 3 * normal(5, 4)
    loss = balanced_softmax_loss(logits, LABELS, class_counts=COUNTS)
    # A count off by one in the class of 6,705 changes the loss by 1e-5.
    assert abs(float(loss) - slow_balanced_softmax(logits, LABELS, COUNTS)) < 1e-12


def test_balanced_softmax_of_even_classes_is_cross_entropy():
    logits = normal(5, 4)
    even = balanced_softmax_loss(logits, LABELS, class_counts=torch.full((4,), 17))
    torch.testing.assert_close(even, torch.nn.functional.cross_entropy(logits, LABELS))


def test_balanced_softmax_keeps_the_counts_in_half_precision():
    # log 6705 rounded to bfloat16 is off by 0.01; counts 6705 and 6650 would look the same.
    logits = torch.zeros(5, 4, dtype=torch.bfloat16)
    loss = balanced_softmax_loss(logits, LABELS, class_counts=COUNTS)
    assert loss.dtype == torch.float32
    assert abs(float(loss) - slow_balanced_softmax(logits, LABELS, COUNTS)) < 1e-5


def test_balanced_softmax_refuses_other_counts():
    with pytest.raises(ShapeError) as caught:
        balanced_softmax_loss(torch.zeros(5, 4), LABELS, class_counts=COUNTS[:3])
    assert str(caught.value) == "class_counts: expected (4,), got (3,)"
    with pytest.raises(InputError) as caught:
        balanced_softmax_loss(torch.zeros(5, 4), LABELS, class_counts=torch.tensor([5, 0, 1, 0]))
    assert str(caught.value) == (
        "class_counts: expected 1 or more per class, got 0 for classes [1, 3]"
    )


def test_cosine_distance_equals_the_unit_vectors_squared_distance():
    q, f = normal(6, 7), normal(6, 7, seed=1)
    # The plain distance without normalisation would be off by more than 1.
    assert abs(float(cosine_distance(q, f)) - slow_distance(q, f)) < 1e-12


def test_cosine_distance_refuses_another_width():
    with pytest.raises(ShapeError) as caught:
        cosine_distance(torch.zeros(2, 3), torch.zeros(2, 4))
    assert str(caught.value) == "projection: expected (2, 4) as the features, got (2, 3)"


def output_of(seed=0):
    return StudentOutput(
        normal(5, 9, seed=seed).requires_grad_(),
        normal(5, 4, seed=seed + 1).requires_grad_(),
        normal(5, 7, seed=seed + 2).requires_grad_(),
        normal(5, 4, seed=seed + 3).requires_grad_(),
    )


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.0])
def test_distillation_loss_equals_the_published_formula(weight):
    output, features = output_of(), normal(5, 7, seed=9)
    loss = distillation_loss(output, features, labels=LABELS, class_counts=COUNTS, weight=weight)
    classes = slow_balanced_softmax(output.logits, LABELS, COUNTS)
    second = slow_balanced_softmax(output.second_logits, LABELS, COUNTS)
    distance = slow_distance(output.projection, features)
    # A mean over features in place of the sum would be off sevenfold, counts of one class by 1e-5.
    total = classes + second + weight * distance
    for found, expected in zip(loss, (total, classes, second, distance), strict=True):
        assert abs(float(found.detach()) - expected) < 1e-12


def test_distillation_loss_teaches_the_student_and_never_the_teacher():
    student = build_student("small", classes=4, teacher_dim=7)
    features = normal(5, 7, seed=9).float().requires_grad_()
    output = student(torch.rand(5, 3, 32, 32))
    distillation_loss(output, features, labels=LABELS, class_counts=COUNTS).total.backward()
    assert features.grad is None
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_distillation_loss_refuses_a_student_without_projector():
    output = build_student("small", classes=4)(torch.rand(5, 3, 32, 32))
    with pytest.raises(InputError) as caught:
        distillation_loss(output, torch.rand(5, 7), labels=LABELS, class_counts=COUNTS)
    assert str(caught.value) == "student: has no projector; build it with teacher_dim above 0"


def slow_smoothed(logits, shares, counts, smoothing):
    """Mean of -sum_k t_k log p_k, with p after the prior and t the smoothed label."""
    total, classes = 0.0, len(counts)
    for row, label in zip(logits.tolist(), shares.tolist(), strict=True):
        weights = [n * math.exp(a) for a, n in zip(row, counts.tolist(), strict=True)]
        for weight, share in zip(weights, label, strict=True):
            target = (1 - smoothing) * share + smoothing / classes
            total -= target * math.log(weight / sum(weights))
    return total / len(logits)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_labels_meet_the_logits_with_their_prior(smoothing):
    logits = 3 * normal(5, 4)
    one_hot = torch.nn.functional.one_hot(LABELS, 4).double()
    mixed = 0.7 * one_hot + 0.3 * one_hot.roll(1, 0)
    for labels, shares in ((LABELS, one_hot), (one_hot, one_hot), (mixed, mixed)):
        loss = balanced_softmax_loss(logits, labels, class_counts=COUNTS, label_smoothing=smoothing)
        # Smoothing before the prior, or over K - 1 classes, is off by over 0.1 at 0.1.
        assert abs(float(loss) - slow_smoothed(logits, shares, COUNTS, smoothing)) < 1e-12


def test_both_heads_of_the_distillation_are_smoothed():
    output, features = output_of(), normal(5, 7, seed=9)
    how = {"labels": LABELS, "class_counts": COUNTS}
    loss = distillation_loss(output, features, **how, label_smoothing=0.2)
    one_hot = torch.nn.functional.one_hot(LABELS, 4).double()
    for found, logits in ((loss.classes, output.logits), (loss.second, output.second_logits)):
        expected = slow_smoothed(logits.detach(), one_hot, COUNTS, 0.2)
        assert abs(float(found.detach()) - expected) < 1e-12
    plain = distillation_loss(output, features, **how)
    assert torch.equal(loss.distance, plain.distance)


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
    loss = balanced_softmax_loss(head(features), labels, class_counts=counts)
    # Features that are not standardised would be off by more than 1, undivided ones by 0.1.
    assert abs(float(loss.detach()) - expected) < 1e-12


def test_a_head_knows_the_scale_of_features_after_a_few_batches():
    head = TaskHead(3, classes=2)
    for seed in range(4):
        if seed == 2:  # as a resumed run does
            state = head.state_dict()
            head = TaskHead(3, classes=2, seed=1)
            head.load_state_dict(state)
        head(1e-3 * normal(32, 3, seed=seed).float() + 5)
    mean, spread = head.standardise.running_mean, head.standardise.running_var.sqrt()
    torch.testing.assert_close(mean, torch.full((3,), 5.0), atol=5e-4, rtol=0)
    # At torch's fixed momentum the spread would still be 0.8.
    torch.testing.assert_close(spread, torch.full((3,), 1e-3), atol=2e-4, rtol=0)


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
