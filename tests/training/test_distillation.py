"""Distillations against slow float64 formulas, and what must not change them."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, mse_loss
from torchdistill.losses import mid_level

from fopro_lab.training.fitted_head import fit_probe
from fopro_lab.training.losses import DISTILLATIONS, FitNet, dkd_loss, kd_loss, rkd_loss, sp_loss
from tests.models.toys import normal

OURS, THEIRS, LABELS = (
    normal(6, 4, seed=1),
    3 * normal(6, 4, seed=2),
    torch.tensor([0, 3, 1, 3, 2, 0]),
)
STUDENT, TEACHER = normal(6, 5, seed=3), normal(6, 9, seed=4) + 2


def softmax(row, temperature=1.0):
    weights = [math.exp(a / temperature) for a in row]
    return [w / sum(weights) for w in weights]


def kl(theirs, ours):
    return sum(t * math.log(t / s) for t, s in zip(theirs, ours, strict=True))


def test_kd_and_dkd_equal_their_formulas():
    plain, decoupled = 0.0, 0.0
    for ours, theirs, y in zip(OURS.tolist(), THEIRS.tolist(), LABELS.tolist(), strict=True):
        s, t = softmax(ours, 2.5), softmax(theirs, 2.5)
        plain += kl(t, s) / 6
        binary = [(p[y], 1 - p[y]) for p in (t, s)]
        rest = [[v / (1 - p[y]) for k, v in enumerate(p) if k != y] for p in (t, s)]
        decoupled += (0.5 * kl(*binary) + 4.0 * kl(*rest)) / 6
    # Without T^2 both would be off sixfold.
    assert abs(float(kd_loss(OURS, THEIRS, temperature=2.5)) - 2.5**2 * plain) < 1e-12
    how = {"temperature": 2.5, "alpha": 0.5, "beta": 4.0}
    assert abs(float(dkd_loss(OURS, THEIRS, LABELS, **how)) - 2.5**2 * decoupled) < 1e-12


def test_kd_is_what_torch_computes_and_the_sum_of_what_dkd_splits():
    target = (THEIRS / 4).softmax(1)
    torch_kd = 16 * kl_div((OURS / 4).log_softmax(1), target, reduction="batchmean")
    assert abs(float(kd_loss(OURS, THEIRS) - torch_kd)) < 1e-12
    for row, label in enumerate(LABELS.tolist()):
        one = slice(row, row + 1)
        rest = 1 - float(target[row, label])  # the teacher's share of the other classes
        split = dkd_loss(OURS[one], THEIRS[one], LABELS[one], alpha=1.0, beta=rest)
        assert abs(float(split - kd_loss(OURS[one], THEIRS[one]))) < 1e-12


def smooth_l1(a, b):
    return 0.5 * (a - b) ** 2 if abs(a - b) < 1 else abs(a - b) - 0.5


def relations(features):
    """Distances of pairs over their mean, and the cosine at each image between two others."""
    rows = features.tolist()
    between = [[math.dist(a, b) for b in rows] for a in rows]
    mean = sum(map(sum, between)) / (len(rows) * (len(rows) - 1))
    arrows = [[[x - y for x, y in zip(b, a, strict=True)] for b in rows] for a in rows]
    angles = [sum(x * y for x, y in zip(u, v, strict=True)) / (math.hypot(*u) * math.hypot(*v) or 1)
              for own in arrows for u in own for v in own]  # fmt: skip
    return [d / mean for row in between for d in row], angles


def test_rkd_equals_its_formula_and_ignores_rotation_and_scale():
    distance, angle = (
        sum(map(smooth_l1, *pair)) / len(pair[0])
        for pair in zip(relations(STUDENT), relations(TEACHER), strict=True)
    )
    loss = rkd_loss(STUDENT, TEACHER)
    assert abs(float(loss) - (25 * distance + 50 * angle)) < 1e-10
    turned = TEACHER @ torch.linalg.qr(normal(9, 9, seed=5))[0] * 0.01 + 7
    assert abs(float(rkd_loss(STUDENT, turned) - loss)) < 1e-8
    assert abs(float(rkd_loss(TEACHER, turned))) < 1e-10
    bent = torch.cat([TEACHER[:, :1] * 1.1, TEACHER[:, 1:]], dim=1)
    assert abs(float(rkd_loss(STUDENT, bent) - loss)) > 1e-3


def test_sp_equals_its_formula_and_ignores_the_order_of_features():
    def gram(features):
        inner = [[sum(map(math.prod, zip(a, b, strict=True))) for b in features] for a in features]
        return [v / math.hypot(*row) for row in inner for v in row]

    pair = zip(gram(STUDENT.tolist()), gram(TEACHER.tolist()), strict=True)
    loss = sp_loss(STUDENT, TEACHER)
    assert abs(float(loss) - sum((a - b) ** 2 for a, b in pair) / 36) < 1e-12
    order = torch.tensor([3, 0, 4, 2, 1])
    assert abs(float(sp_loss(STUDENT[:, order], TEACHER) - loss)) < 1e-12
    assert abs(float(sp_loss(STUDENT[[*order.tolist(), 5]], TEACHER) - loss)) > 1e-3  # of images


def test_fitnet_is_the_mean_square_of_what_a_linear_map_misses():
    term = FitNet(5, 9).double()
    weight, bias = term.regressor.weight, term.regressor.bias
    expected = ((STUDENT @ weight.T + bias - TEACHER) ** 2).sum() / (6 * 9)
    assert abs((term(STUDENT, TEACHER) - expected).item()) < 1e-12


def test_kd_rkd_and_fitnet_are_those_of_torchdistill():
    def theirs(name, ours, teacher, *places, **options):
        given = [{"a": {"output": features}} for features in (ours, teacher)]
        return float(getattr(mid_level, name)(*places, **options)(*given))

    kd = theirs("KDLoss", OURS, THEIRS, "a", "output", "a", "output", temperature=2.5, alpha=0)
    # Theirs leaves out T^2 where no labels are given.
    assert abs(float(kd_loss(OURS, THEIRS, temperature=2.5)) - 2.5**2 * kd) < 1e-12
    how = {"dist_factor": 25, "angle_factor": 50, "reduction": "mean"}
    rkd = theirs("RKDLoss", STUDENT, TEACHER, "a", "a", **how)
    assert abs(float(rkd_loss(STUDENT, TEACHER)) - rkd) < 1e-9
    # Its SP divides rows by the sum of their absolute values, where the paper has their length.
    term = FitNet(5, 9).double()
    fitnet = mse_loss(term.regressor(STUDENT), TEACHER)  # as its configurations have a hint
    assert abs((term(STUDENT, TEACHER) - fitnet).item()) < 1e-12


@pytest.mark.parametrize("name", ["kd", "dkd", "rkd", "sp"])
def test_a_distillation_is_0_for_the_teacher_itself_and_teaches_where_images_are_equal(name):
    given = (THEIRS, LABELS) if name == "dkd" else (THEIRS,)
    same = THEIRS[[0, 0, 1, 2, 3, 4]].clone().requires_grad_()
    assert abs(float(DISTILLATIONS[name](THEIRS, *given))) < 1e-12
    DISTILLATIONS[name](same, *given).backward()  # two images of one place: no root of 0
    assert torch.isfinite(same.grad).all() and same.grad.abs().max() > 0


def test_a_probe_knows_the_classes_and_is_as_sure_as_held_out_images_allow():
    labels = torch.arange(300) % 3
    features = 2 * torch.eye(8)[labels] + normal(300, 8, seed=6).float()
    train, held_out = slice(0, 150), slice(150, 300)
    how = {"held_out": (features[held_out], labels[held_out]), "classes": 3}
    weight, bias = fit_probe(features[train], labels[train], **how)
    assert weight.shape == (3, 8) and bias.shape == (3,)
    logits = features[held_out] @ weight.T + bias
    assert (logits.argmax(1) == labels[held_out]).float().mean() > 0.75
    chosen = cross_entropy(logits, labels[held_out])
    for scale in (0.5, 2.0):
        assert cross_entropy(scale * logits, labels[held_out]) > chosen
