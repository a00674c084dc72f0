import numpy as np
import torch

from fopro_lab.probing.features import encode_rows, teacher_device


def test_encode_rows_keeps_the_order_whatever_the_batch(world):
    rows = np.array([5, 0, 7, 2])
    found = encode_rows(world.teacher, world.pack, rows=rows, batch_size=3)
    pixels = torch.from_numpy(world.pack.images[rows]).permute(0, 3, 1, 2) / 255
    expected = world.teacher.function(pixels).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_encode_rows_gives_pictures_in_zero_to_one(world):
    encode_rows(world.teacher, world.pack, rows=np.arange(4))
    (seen,) = world.teacher.seen
    assert seen.shape == (4, 3, 16, 16) and 0.1 < seen.min() < seen.max() <= 1


def test_teacher_device_is_that_of_weights_or_buffers():
    assert teacher_device(torch.nn.Linear(1, 1, device="meta")).type == "meta"
    assert teacher_device(torch.nn.ReLU()).type == "cpu"
    buffered = torch.nn.Module()
    buffered.register_buffer("mean", torch.zeros(1, device="meta"))
    assert teacher_device(buffered).type == "meta"
