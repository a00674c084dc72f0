"""The EKD loss and the terms of the prompt, against independent float64 formulas."""

import math

import pytest
import torch

from fopro_lab.models import StudentOutput, build_student
from fopro_lab.training import balanced_softmax_loss, distillation_loss
from fopro_lab.training.losses import (
    LOSSES,
    TaskHead,
    disagreement_loss,
    effective_weights,
    identity_loss,
    label_shares,
)
from tests.conftest import complaint
from tests.models.toys import normal, toy_images

COUNTS = torch.tensor([6705, 40, 3, 1])
LABELS = torch.tensor([0, 3, 1, 3, 2])
ONE_HOT = torch.nn.functional.one_hot(LABELS, 4).double()


def slow_distance(projection, features):
    """Mean of |q / |q| - f / |f||^2, image by image: another road to 2 - 2 cos."""
    total = 0.0
    for q, f in zip(projection.tolist(), features.tolist(), strict=True):
        lengths = math.hypot(*q), math.hypot(*f)
        total += sum((a / lengths[0] - b / lengths[1]) ** 2 for a, b in zip(q, f, strict=True))
    return total / len(projection)


def slow_smoothed(logits, shares, counts, smoothing=0.0):
    """Mean of -sum_k t_k log p_k, with p after the prior and t the smoothed label."""
    total, classes = 0.0, len(counts)
    for row, label in zip(logits.tolist(), shares.tolist(), strict=True):
        weights = [n * math.exp(a) for a, n in zip(row, counts.tolist(), strict=True)]
        for weight, share in zip(weights, label, strict=True):
            target = (1 - smoothing) * share + smoothing / classes
            total -= target * math.log(weight / sum(weights))
    return total / len(logits)


def test_balanced_softmax_keeps_the_counts_in_half_precision():
    # log 6705 rounded to bfloat16 is off by 0.01; counts 6705 and 6650 would look the same.
    logits = torch.zeros(5, 4, dtype=torch.bfloat16)
    loss = balanced_softmax_loss(logits, LABELS, class_counts=COUNTS)
    assert loss.dtype == torch.float32
    assert abs(float(loss) - slow_smoothed(logits, ONE_HOT, COUNTS)) < 1e-5


@pytest.mark.parametrize(("weight", "smoothing"), [(0.0, 0.0), (3.0, 0.0), (1.0, 0.2)])
def test_distillation_loss_equals_the_published_formula(weight, smoothing):
    output = StudentOutput(*(normal(5, width, seed=width) for width in (9, 4, 7)), normal(5, 4))
    features = normal(5, 7, seed=9)
    labels = label_shares(ONE_HOT, classes=4, smoothing=smoothing) if smoothing else LABELS
    how = {"weight": weight, "class_counts": COUNTS}
    loss = distillation_loss(output, features, labels=labels, **how)
    classes = slow_smoothed(output.logits, ONE_HOT, COUNTS, smoothing)
    second = slow_smoothed(output.second_logits, ONE_HOT, COUNTS, smoothing)
    distance = slow_distance(output.projection, features)
    # A mean over features in place of the sum would be off sevenfold, counts of one class by 1e-5,
    # the distance without normalisation by more than 1.
    total = classes + second + weight * distance
    assert [float(part) for part in loss] == pytest.approx(
        [total, classes, second, distance], rel=0, abs=1e-12
    )


def test_distillation_loss_teaches_the_student_and_never_the_teacher():
    student = build_student("small", classes=4, teacher_dim=7)
    features = normal(5, 7, seed=9).float().requires_grad_()
    output = student(torch.rand(5, 3, 32, 32))
    distillation_loss(output, features, labels=LABELS, class_counts=COUNTS).total.backward()
    assert features.grad is None
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_balanced_softmax_of_labels_and_shares_equals_the_formula(smoothing):
    logits = 3 * normal(5, 4)
    mixed = 0.7 * ONE_HOT + 0.3 * ONE_HOT.roll(1, 0)
    for labels, shares in ((LABELS, ONE_HOT), (ONE_HOT, ONE_HOT), (mixed, mixed)):
        if smoothing:
            labels = label_shares(shares, classes=4, smoothing=smoothing)
        loss = balanced_softmax_loss(logits, labels, class_counts=COUNTS)
        # A count off by one in the class of 6,705 changes the loss by 1e-5.
        # Smoothing before the prior, or over K - 1 classes, is off by over 0.1 at 0.1.
        assert abs(float(loss) - slow_smoothed(logits, shares, COUNTS, smoothing)) < 1e-12


TAKES = {"logit-adjustment": {"class_counts": COUNTS, "tau": 1.5}, "focal": {"gamma": 1.7},
         "class-balanced": {"class_counts": COUNTS, "beta": 0.99}, "ldam": {"train_counts": COUNTS},
         "ldam-drw": {"train_counts": COUNTS, "class_counts": COUNTS.flip(0), "epoch": 4,
                      "epochs": 5, "beta": 0.9}}  # fmt: skip


def slow_loss(name, logits, shares):
    """Mean of the sum over classes of its share, its weight and its term, number by number."""
    n, total, norm = COUNTS.tolist(), 0.0, 0.0
    for row, label in zip(logits.tolist(), shares.tolist(), strict=True):
        for k, share in enumerate(label):
            z = list(row)
            if name == "logit-adjustment":
                z = [a + 1.5 * math.log(m / sum(n)) for a, m in zip(z, n, strict=True)]
            if name.startswith("ldam"):
                z[k] -= 30 * 0.5 * (n[k] / min(n)) ** -0.25
            p = math.exp(z[k]) / sum(map(math.exp, z))
            weight = (1 - p) ** 1.7 if name == "focal" else 1.0
            if name in ("class-balanced", "ldam-drw"):
                beta, m = (0.99, n) if name == "class-balanced" else (0.9, n[::-1])
                weights = [(1 - beta) / (1 - beta**count) for count in m]
                weight = len(m) * weights[k] / sum(weights)
            total -= share * weight * math.log(p)
            norm += share * (weight if name == "ldam-drw" else 1)
    return total / norm


@pytest.mark.parametrize("name", TAKES)
def test_a_loss_of_labels_and_of_shares_equals_its_formula(name):
    logits, mixed = 2 * normal(5, 4), 0.7 * ONE_HOT + 0.3 * ONE_HOT.roll(1, 0)
    smoothed = label_shares(mixed, classes=4, smoothing=0.1)
    for labels, shares in ((LABELS, ONE_HOT), (mixed, mixed), (smoothed, 0.9 * mixed + 0.025)):
        loss = LOSSES[name](logits, labels, **TAKES[name])
        # A weight of the classes from COUNTS without its order, a mean over weights in place of
        # images or the other way round, a margin of the square root or of another class are off by
        # more than 0.01.
        assert abs(float(loss) - slow_loss(name, logits, shares)) < 1e-10


def test_losses_are_cross_entropy_where_they_say_so_and_weights_go_to_their_limits():
    logits, plain = 2 * normal(5, 4), torch.nn.functional.cross_entropy
    expected, even = plain(2 * normal(5, 4), LABELS), torch.full((4,), 7.0)
    for name, options in [("focal", {"gamma": 0.0}), ("ce", {}),
                          ("logit-adjustment", {"class_counts": COUNTS, "tau": 0.0}),
                          ("class-balanced", {"class_counts": COUNTS, "beta": 0.0})]:  # fmt: skip
        assert abs(float(LOSSES[name](logits, LABELS, **options) - expected)) < 1e-12, name
    how = {"class_counts": COUNTS}
    adjusted, balanced = (LOSSES[n](logits, LABELS, **how) for n in ("logit-adjustment", "bsm"))
    assert abs(float(adjusted - balanced)) < 1e-12
    near = effective_weights(COUNTS, beta=1 - 1e-12)
    torch.testing.assert_close(near * COUNTS, (near * COUNTS)[:1].expand(4), rtol=1e-6, atol=0)
    assert torch.equal(effective_weights(even), torch.ones(4, dtype=torch.float64))
    early = LOSSES["ldam-drw"](logits, LABELS, **TAKES["ldam-drw"] | {"epoch": 3})
    assert early == LOSSES["ldam"](logits, LABELS, train_counts=COUNTS)
    # Sure of every label: no root of 0 in the gradient.
    sure = (100 * ONE_HOT).requires_grad_()
    LOSSES["focal"](sure, LABELS, gamma=0.5).backward()
    assert torch.isfinite(sure.grad).all()


def test_a_student_of_ldam_gives_scaled_cosines():
    student = build_student("small", classes=4, teacher_dim=7, cosines=True).eval()
    found = student(toy_images(5, 32))
    pairs = (found.features, student.classifier), (found.projection, student.second_classifier)
    for (inputs, head), logits in zip(pairs, (found.logits, found.second_logits), strict=True):
        unit = inputs / inputs.norm(dim=1)[:, None]
        rows = head.weight / head.weight.norm(dim=1)[:, None]
        torch.testing.assert_close(logits, 30 * unit @ rows.T, rtol=0, atol=1e-4)


def test_identity_equals_the_formula():
    log_gain = normal(3, 4, 5)
    expected = sum(x**2 for x in log_gain.flatten().tolist()) / 60
    assert abs(float(identity_loss(log_gain.exp())) - expected) < 1e-12


def test_a_head_standardises_features_and_divides_them_by_the_root_of_their_number():
    features, head = 100 * normal(6, 3) + 7, TaskHead(3, classes=2).double()
    variance, mean = torch.var_mean(features, dim=0, correction=0)
    standard = (features - mean) / (variance + 1e-5).sqrt() / math.sqrt(3)
    torch.testing.assert_close(head(features), head.linear(standard), rtol=0, atol=1e-12)


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
    expected = slow_distance(student(toy_images(3, 32)).projection, features)
    assert abs(float(loss.detach()) + expected) < 1e-5
    loss.backward()
    assert features.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in student.parameters())


def test_what_does_not_fit_is_said():
    logits, images, features = torch.zeros(5, 4), toy_images(5, 32), torch.rand(5, 7)
    student = build_student("small", classes=4)  # a baseline's
    told = complaint(balanced_softmax_loss, logits, LABELS, class_counts=COUNTS[:3])
    assert told == "class_counts: expected (4,), got (3,)"
    told = complaint(balanced_softmax_loss, logits, LABELS, class_counts=torch.tensor([5, 0, 1, 0]))
    assert told == "class_counts: expected 1 or more per class, got 0 for classes [1, 3]"
    how = {"labels": LABELS, "class_counts": COUNTS}
    told = complaint(distillation_loss, student(images), features, **how)
    assert told == "student: has no projector; build it with teacher_dim above 0"
    told = complaint(disagreement_loss, student, images, features)
    assert told == "objective 'disagreement': the student has no projector"
