import numpy as np
import pytest
import torch

from fopro_lab.errors import InputError
from fopro_lab.probing.features import encode, encode_rows, teacher_device


def test_encode_rows_keeps_the_order_whatever_the_batch(world):
    rows = np.array([5, 0, 7, 2])
    found = encode_rows(world.teacher, world.pack, rows=rows, batch_size=3)
    pixels = torch.from_numpy(world.pack.images[rows]).permute(0, 3, 1, 2) / 255
    expected = world.teacher.function(pixels).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_encode_rows_gives_images_in_zero_to_one(world):
    encode_rows(world.teacher, world.pack, rows=np.arange(4))
    (seen,) = world.teacher.seen
    assert seen.shape == (4, 3, 16, 16) and 0.1 < seen.min() < seen.max() <= 1


def test_teacher_device_is_that_of_weights_or_buffers():
    assert teacher_device(torch.nn.Linear(1, 1, device="meta")).type == "meta"
    assert teacher_device(torch.nn.ReLU()).type == "cpu"
    buffered = torch.nn.Module()
    buffered.register_buffer("mean", torch.zeros(1, device="meta"))
    assert teacher_device(buffered).type == "meta"


def test_what_is_no_feature_vector_is_refused_in_one_line(stub):
    images = torch.rand(2, 3, 8, 8)
    for function, told in (
        (
            lambda x: x,
            r"expected features \(2, D\), one vector an image, got \(2, 3, 8, 8\); pool",
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
