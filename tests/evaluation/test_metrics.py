"""Oracle: scikit-learn, with sample weights for resamples. Exact to 1e-9 relative in float64."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn import metrics as oracle
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from fopro_lab.evaluation import metrics


def drawn(seed, *, n=60, classes=4, resamples=3):
    """Labels of every class, logits with ties, and integer weights that keep every class."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=n - classes)])
    logits = rng.integers(-3, 4, size=(n, classes)) / 2.0
    weights = rng.integers(0, 4, size=(n, resamples)).astype(float)
    weights[:classes] = 1
    return labels, logits, weights


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_metrics_of_resamples_equal_scikit_learn_with_sample_weights(seed):
    labels, logits, weights = drawn(seed)
    predicted, p = logits.argmax(axis=1), softmax(logits, axis=1)
    confusion = metrics.confusion_matrices(labels, predicted, weights, classes=4)
    auroc = metrics.macro_auroc(p, labels, weights)
    for r in range(weights.shape[1]):
        w = {"sample_weight": weights[:, r]}
        expected = {
            "accuracy": oracle.accuracy_score(labels, predicted, **w),
            "macro_f1": oracle.f1_score(labels, predicted, average="macro", **w),
            "mcc": oracle.matthews_corrcoef(labels, predicted, **w),
            "kappa": oracle.cohen_kappa_score(labels, predicted, **w),
        }
        for name, values in metrics.agreement(confusion).items():
            np.testing.assert_allclose(values[r], expected[name], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            metrics.class_recalls(confusion)[r],
            oracle.recall_score(labels, predicted, average=None, zero_division=0, **w),
            rtol=1e-9,
        )
        one_hot = np.eye(4)[labels]
        expected = [oracle.roc_auc_score(one_hot[:, k], p[:, k], **w) for k in range(4)]
        np.testing.assert_allclose(auroc[r], np.mean(expected), rtol=1e-9)


def slow_calibration_error(p, labels):
    """Guo et al., equation 5, bin by bin."""
    total = 0.0
    for b in range(15):
        inside = [i for i in range(len(p)) if b / 15 < max(p[i]) <= (b + 1) / 15]
        if inside:
            right = np.mean([p[i].argmax() == labels[i] for i in inside])
            total += len(inside) / len(p) * abs(right - np.mean([max(p[i]) for i in inside]))
    return total


def test_calibration_error_equals_the_slow_definition_also_for_repeated_images():
    labels, logits, weights = drawn(5)
    p = softmax(logits, axis=1)
    got = metrics.calibration_error(p, labels, weights)
    for r in range(weights.shape[1]):
        rows = np.repeat(np.arange(len(p)), weights[:, r].astype(int))
        np.testing.assert_allclose(got[r], slow_calibration_error(p[rows], labels[rows]), rtol=1e-9)


def test_a_class_without_images_and_a_single_class():
    labels, predicted = np.array([0, 0, 1]), np.array([0, 2, 1])
    confusion = metrics.confusion_matrices(labels, predicted, np.ones((3, 1)), classes=3)
    np.testing.assert_array_equal(metrics.class_recalls(confusion), [[0.5, 1.0, np.nan]])
    expected = oracle.f1_score(labels, predicted, labels=[0, 1], average="macro")
    np.testing.assert_allclose(metrics.agreement(confusion)["macro_f1"], [expected])
    ones, truth = np.ones((3, 1)), np.array([0, 1, 1])
    confusion = metrics.confusion_matrices(truth, np.zeros(3, int), ones, classes=2)
    found = metrics.agreement(confusion)  # as in scikit-learn
    assert (found["mcc"], found["kappa"]) == (0.0, 0.0)
    assert np.isnan(metrics.agreement(np.array([[[5.0, 0.0], [0.0, 0.0]]]))["kappa"])
    assert metrics.balanced_accuracy(np.array([0, 0]), np.array([0, 3])) == 0.5
    p = np.full((4, 2), 0.5)
    assert np.isnan(metrics.macro_auroc(p, np.zeros(4, int), np.ones((4, 1)))).all()
    assert metrics.macro_auroc(p, np.array([0, 0, 1, 1]), np.ones((4, 1))).tolist() == [0.5]


def test_discriminant_scores_equal_scikit_learns_where_classes_are_equally_large():
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(4), 30)
    features = rng.normal(size=(len(labels), 3)) + labels[:, None] * [1, 0.3, -0.5]
    new = rng.normal(size=(50, 3))
    weight, bias = metrics.discriminant(features, labels, classes=4, shrinkage=1e-6)
    scores = new @ weight + bias
    model = LinearDiscriminantAnalysis(solver="lsqr", priors=np.full(4, 1 / 4))
    expected = model.fit(features, labels).decision_function(new)
    centred = [part - part.mean(axis=1, keepdims=True) for part in (scores, expected)]
    np.testing.assert_allclose(*centred, rtol=1e-4, atol=1e-4)
