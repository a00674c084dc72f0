import numpy as np
import pytest

from fopro_lab.data import batches, open_dataset, pack
from fopro_lab.errors import InputError
from fopro_lab.fourier import ring_edges
from fopro_lab.models import load_teacher
from fopro_lab.probing import ask_teachers, relative_responses, ring_drifts
from fopro_lab.probing.features import draw_rows


@pytest.fixture(scope="module")
def packed():
    return pack(open_dataset("phantom", images=60), 24, progress=False)


def test_each_teacher_answers_as_when_asked_alone(packed):
    rows = np.arange(10, 50)
    drifts, units = ask_teachers({"builtin": ""}, packed, rows, rings=3, count=12, seed=4)
    drawn = draw_rows(rows, count=12, seed=4)
    images, _ = next(batches(packed, drawn, batch_size=12))
    alone = ring_drifts(load_teacher("builtin"), images, ring_edges(3), (0.0, 2.0))
    np.testing.assert_array_equal(drifts["builtin"].drift, alone.drift)
    assert set(units) <= set(packed.dataset.table["group"].iloc[drawn])


def test_relative_responses_follow_their_definition(packed):
    drifts, units = ask_teachers({"builtin": ""}, packed, np.arange(60), rings=3, count=20)
    found = relative_responses(drifts["builtin"], units, resamples=50)
    ratio = drifts["builtin"].drift[0].sum(-1) / drifts["builtin"].energy[0].sum(-1)
    expected = ratio / np.exp(np.log(ratio).mean(axis=0))  # geometric mean over the rings
    np.testing.assert_allclose(found["relative"], expected.ravel(), rtol=1e-9)
    assert (found["relative_low"] <= found["relative"] + 1e-12).all()
    assert (found["relative_high"] >= found["relative"] - 1e-12).all()
    assert found[["low", "high"]].iloc[0].tolist() == [0.0, pytest.approx(1 / 6)]


def test_an_unknown_teacher_is_one_clear_line(packed):
    with pytest.raises(InputError, match="teacher"):
        ask_teachers({"nobody": ""}, packed, np.arange(9))
