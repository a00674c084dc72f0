import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.probing.features import STRENGTHS, linear_probe


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


def test_rare_classes_weigh_as_much_as_frequent_ones():
    (x, y), (vx, vy) = clouds(600, noise=1.5), clouds(600, seed=1, noise=1.5)
    probe = linear_probe(x, y, val_features=vx, val_labels=vy)
    plain = LogisticRegression(max_iter=1000).fit((x - probe.mean) / probe.scale, y)
    recall = {
        name: np.mean(predicted[vy == 2] == 2)
        for name, predicted in (
            ("balanced", probe.predict(vx)),
            ("plain", plain.predict((vx - probe.mean) / probe.scale)),
        )
    }
    assert recall["balanced"] > recall["plain"] + 0.05


def test_a_constant_feature_is_harmless():
    x, y = clouds(60)
    x = np.concatenate([x, np.full((60, 1), 0.1, dtype=np.float32)], axis=1)
    probe = linear_probe(x, y, val_features=x, val_labels=y)
    assert probe.scale[-1] == 1 and np.isfinite(probe.logits(x)).all()


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
