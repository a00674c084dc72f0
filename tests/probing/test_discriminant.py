import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from fopro_lab.probing.features import discriminant_scores


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_equal_scikit_learns_where_classes_are_equally_large(classes):
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(classes), 30)
    features = rng.normal(size=(len(labels), 3)) + labels[:, None] * [1, 0.3, -0.5]
    new = rng.normal(size=(50, 3))
    scores = discriminant_scores(features, labels, new=new, classes=classes)
    model = LinearDiscriminantAnalysis(solver="lsqr", priors=np.full(classes, 1 / classes))
    expected = model.fit(features, labels).decision_function(new)
    if classes == 2:
        np.testing.assert_allclose(scores[:, 1] - scores[:, 0], expected, rtol=1e-4, atol=1e-5)
    else:
        centred = [part - part.mean(axis=1, keepdims=True) for part in (scores, expected)]
        np.testing.assert_allclose(*centred, rtol=1e-4, atol=1e-4)


def test_the_size_of_a_class_moves_nothing():
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(40, 2)), np.arange(40) % 2
    many = np.concatenate([np.flatnonzero(labels == 0), np.tile(np.flatnonzero(labels == 1), 9)])
    new = rng.normal(size=(9, 2))
    same = [
        discriminant_scores(features[rows], labels[rows], new=new, classes=2)
        for rows in (np.arange(40), many)
    ]
    np.testing.assert_allclose(*same, rtol=1e-9)


def test_constant_features_are_harmless():
    scores = discriminant_scores(
        np.ones((4, 2)), np.array([0, 0, 1, 1]), new=np.ones((1, 2)), classes=2
    )
    assert np.isfinite(scores).all() and np.ptp(scores) < 1e-6
