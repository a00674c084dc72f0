import numpy as np
import pytest
import torch

from fopro_lab.data import make_split, open_dataset, pack
from fopro_lab.errors import WorkError
from fopro_lab.evaluation import read_predictions, write_predictions
from fopro_lab.models import build_student
from fopro_lab.training.train import predict, prediction_table
from fopro_lab.training.train_prompt import shrink


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    cache = tmp_path_factory.mktemp("packs")
    return pack(open_dataset("phantom", images=120), 32, cache=cache, progress=False)


@pytest.fixture
def student():
    return build_student("small", classes=8, teacher_dim=5)


def test_logits_come_in_the_order_of_the_rows(packed, student):
    rows = np.array([7, 3, 100, 3])
    logits = predict(student, packed, rows, batch_size=3)
    assert logits.shape == (4, 8) and logits.dtype == np.float32
    assert not student.training
    with torch.inference_mode():
        for row, found in zip(rows, logits, strict=True):
            expected = student.classify(packed[row][0][None])[0].numpy()
            # 1e-5 is rounding between batch sizes; batch statistics would be off by 0.1.
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fits", [1, 5, 39])
def test_a_batch_too_large_for_the_memory_is_classified_in_parts(
    packed, student, monkeypatch, fits
):
    rows = np.arange(40)
    expected = predict(student, packed, rows)
    classify, sizes = student.classify, []

    def short_of_memory(images):
        sizes.append(len(images))
        if len(images) > fits:
            raise torch.OutOfMemoryError("out of memory")
        return classify(images)

    monkeypatch.setattr(student, "classify", short_of_memory)
    np.testing.assert_allclose(predict(student, packed, rows), expected, rtol=1e-5, atol=1e-5)
    assert max(sizes) == 40 and min(sizes) <= fits


def test_one_image_too_large_for_the_memory_is_told(packed, student, monkeypatch):
    def short_of_memory(images):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(student, "classify", short_of_memory)
    with pytest.raises(WorkError, match=r"^out of GPU memory with one image of 32 px"):
        predict(student, packed, np.arange(3))


def test_batches_do_not_change_the_answer(packed, student):
    rows = np.arange(40)
    np.testing.assert_allclose(
        predict(student, packed, rows, batch_size=7), predict(student, packed, rows),
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip


def test_the_student_may_see_smaller_images(packed, student):
    small = predict(student, packed, np.arange(3), size=16)
    images = torch.stack([packed[row][0] for row in range(3)])
    with torch.inference_mode():
        expected = student.classify(shrink(images, 16)).numpy()
    np.testing.assert_allclose(small, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(small - predict(student, packed, np.arange(3))).max() > 1e-4


def test_predicting_moves_no_batch_norm(packed, student):
    before = {name: value.clone() for name, value in student.state_dict().items()}
    predict(student, packed, np.arange(10))
    assert all(torch.equal(student.state_dict()[name], value) for name, value in before.items())


def test_the_table_holds_every_held_out_image_once(packed, student, tmp_path):
    split = make_split(packed.dataset)
    table = prediction_table(student, packed, split)
    source = packed.dataset.table
    for name, rows in (("val", split.val), ("test", split.test)):
        part = table[table["split"] == name]
        assert part["image"].tolist() == source["image"].iloc[rows].tolist()
        assert part["label"].tolist() == source["label"].iloc[rows].tolist()
        assert part["group"].tolist() == source["group"].iloc[rows].tolist()
        logits = part[[f"logit_{name}" for name in packed.dataset.class_names]].to_numpy()
        np.testing.assert_array_equal(logits, predict(student, packed, rows))
    write_predictions(tmp_path / "p.parquet", table)
    assert len(read_predictions(tmp_path / "p.parquet")) == len(split.val) + len(split.test)
