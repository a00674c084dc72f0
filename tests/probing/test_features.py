"""Features and the linear probe."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from fopro_lab.probing.features import STRENGTHS, encode, encode_rows, linear_probe
from tests.conftest import refuses
from tests.probing.toys import Stub


def test_encode_rows_keeps_the_order_whatever_the_batch(world):
    rows = np.array([5, 0, 7, 2])
    found = encode_rows(world.teacher, world.pack, rows=rows, batch_size=3)
    pixels = torch.from_numpy(world.pack.images[rows]).permute(0, 3, 1, 2) / 255
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, world.teacher.function(pixels).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (lambda x: x, r"expected features \(2, D\), .* got \(2, 3, 8, 8\); pool"),
        (lambda x: x.flatten(1) / 0, r"expected finite features, got NaN or infinity"),
        (lambda x: x @ torch.ones(9), r"cannot encode images of 8 x 8 px \(.*\); give larger"),
    ],
)
def test_what_is_no_feature_vector_is_refused_in_one_line(function, complaint):
    refuses(f"^teacher stub: {complaint}", encode, Stub(function), torch.rand(2, 3, 8, 8))


def clouds(count, *, classes, seed=0):
    rng = np.random.default_rng(seed)
    shares = np.array([6, 3, 1][:classes])
    labels = rng.choice(classes, count, p=shares / shares.sum())
    labels[:classes] = np.arange(classes)
    centres = np.random.default_rng(99).normal(size=(classes, 5))
    features = centres[labels] + rng.normal(size=(count, 5))
    return (1000 + 10 * features).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3])
def test_linear_probe_equals_scikit_learn(classes):
    (x, y), (vx, vy) = clouds(200, classes=classes), clouds(100, classes=classes, seed=1)
    probe = linear_probe(x, y, val_features=vx, val_labels=vy)
    scaler = StandardScaler().fit(x.astype(np.float64))
    x, scaled = scaler.transform(x), scaler.transform(vx)
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    models = [clone(model).set_params(C=strength).fit(x, y) for strength in STRENGTHS]
    scores = [balanced_accuracy_score(vy, model.predict(scaled)) for model in models]
    best = models[np.argmax(scores)]
    assert probe.strength == best.C and probe.val_balanced_accuracy == pytest.approx(max(scores))
    np.testing.assert_array_equal(probe.predict(vx), best.predict(scaled))
    shares = softmax(probe.logits(vx), axis=1)
    np.testing.assert_allclose(shares, best.predict_proba(scaled), atol=1e-3)
