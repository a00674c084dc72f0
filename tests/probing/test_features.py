"""Features, the linear probe and classifiers."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.probing.features import (
    STRENGTHS,
    encode,
    encode_rows,
    linear_probe,
    resampling_units,
)


def test_encode_rows_keeps_the_order_whatever_the_batch(world):
    rows = np.array([5, 0, 7, 2])
    found = encode_rows(world.teacher, world.pack, rows=rows, batch_size=3)
    pixels = torch.from_numpy(world.pack.images[rows]).permute(0, 3, 1, 2) / 255
    expected = world.teacher.function(pixels).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_is_no_feature_vector_is_refused_in_one_line(stub):
    images = torch.rand(2, 3, 8, 8)
    for function, told in (
        (
            lambda x: x,
            r"expected features \(2, D\), one vector per image, got \(2, 3, 8, 8\); pool",
        ),
        (lambda x: x[:1].flatten(1), r"expected features \(2, D\), .* got \(1, 192\)"),
        (lambda x: None, r"expected features \(B, D\), got NoneType; wrap it"),
        (lambda x: x.flatten(1) / 0, r"expected finite features, got NaN or infinity"),
        (lambda x: x @ torch.ones(9), r"cannot encode images of 8 x 8 px \(.*\); give larger"),
    ):
        with pytest.raises(InputError, match=rf"^teacher stub: {told}") as caught:
            encode(stub(function), images)
        assert "\n" not in str(caught.value)


def test_half_precision_features_come_back_in_single(stub):
    layer = torch.nn.Linear(3 * 8 * 8, 4)
    images = torch.rand(2, 3, 8, 8)
    teacher = stub(lambda x: layer(x.flatten(1)))
    half = encode(teacher, images, precision="bf16-mixed")
    assert half.dtype == torch.float32 and not half.equal(encode(teacher, images))


def test_units_are_lesions_or_single_images():
    table = pd.DataFrame({"image": ["a", "b", "c"], "group": ["x", "", "x"]})
    assert resampling_units(table, rows=np.array([2, 1])).tolist() == ["x", "image b"]


def clouds(count, *, classes=3, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, count, p=np.array([6, 3, 1][:classes]) / sum([6, 3, 1][:classes]))
    labels[:classes] = np.arange(classes)
    centres = np.random.default_rng(99).normal(size=(classes, 5))
    features = centres[labels] + noise * rng.normal(size=(count, 5))
    return (1000 + 10 * features).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3])
def test_linear_probe_equals_scikit_learn(classes):
    (x, y), (vx, vy) = clouds(200, classes=classes), clouds(100, classes=classes, seed=1)
    probe = linear_probe(x, y, val_features=vx, val_labels=vy)
    scaler = StandardScaler().fit(x.astype(np.float64))
    found = {}
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
        model.fit(scaler.transform(x), y)
        predicted = model.predict(scaler.transform(vx))
        found[strength] = balanced_accuracy_score(vy, predicted), predicted
    best = max(found, key=lambda strength: found[strength][0])
    assert probe.strength == best
    assert probe.val_balanced_accuracy == pytest.approx(found[best][0])
    np.testing.assert_array_equal(probe.predict(vx), found[best][1])
    model = LogisticRegression(C=best, class_weight="balanced", max_iter=1000)
    shares = np.exp(probe.logits(vx))
    shares /= shares.sum(axis=1, keepdims=True)
    expected = model.fit(scaler.transform(x), y).predict_proba(scaler.transform(vx))
    np.testing.assert_allclose(shares, expected, atol=1e-3)


def test_equals_go_to_the_strongest_regularisation():
    x, y = clouds(90, noise=0.01)
    assert linear_probe(x, y, val_features=x, val_labels=y).strength == STRENGTHS[0]


def test_wrong_input_is_refused():
    x, y = clouds(30)
    with pytest.raises(
        ShapeError, match=r"^train_features, train_labels: .* \(30, 5\) and \(29,\)"
    ):
        linear_probe(x, y[1:], val_features=x, val_labels=y)
    with pytest.raises(
        ShapeError, match=r"^val_features, val_labels: expected \(n, D\) and \(n,\)"
    ):
        linear_probe(x, y, val_features=x[:0], val_labels=y[:0])
    with pytest.raises(InputError, match=r"^train_labels: expected every class .* got \[1, 3\]$"):
        linear_probe(x, 1 + 2 * (y > 0), val_features=x, val_labels=y)
    with pytest.raises(InputError, match=r"^train_labels: expected every class .* got \[0\]$"):
        linear_probe(x, 0 * y, val_features=x, val_labels=y)
    bad = x.copy()
    bad[3, 2] = np.nan
    with pytest.raises(InputError, match=r"^val_features: expected finite numbers"):
        linear_probe(x, y, val_features=bad, val_labels=y)
