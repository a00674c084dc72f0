"""Packs in other processes and in other people's loops."""

import copy
import dataclasses
import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, WeightedRandomSampler

from fopro_lab.data import Pack, open_dataset, pack
from fopro_lab.data import pack as pack_files
from fopro_lab.data.augment import TorchPack
from fopro_lab.errors import InputError, WorkError

# Python 3.12 warns of every fork beside a thread; the children here use none.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def mapped(tmp_path, monkeypatch) -> Pack:
    """Return a pack of 40 images as a memory map."""
    monkeypatch.setattr(pack_files, "HELD", 0)
    return pack(open_dataset("phantom", images=40), 64, cache=tmp_path, progress=False)


def brightest(image: torch.Tensor) -> torch.Tensor:
    """Be a transform that another process can import."""
    return image.amax(dim=0, keepdim=True)


def test_pack_is_sent_without_its_pixels(mapped):
    sent = pickle.dumps(mapped)
    assert len(sent) < 20_000 < mapped.images.nbytes  # 10 kB of names; pixels are 491 kB
    again = pickle.loads(sent)
    assert isinstance(again.images, np.memmap)
    np.testing.assert_array_equal(again.images, mapped.images)
    np.testing.assert_array_equal(copy.deepcopy(mapped).images, mapped.images)


def test_a_pack_held_in_memory_is_sent_whole_and_needs_no_file(tmp_path):
    held = pack(open_dataset("phantom", images=40), 64, cache=tmp_path, progress=False)
    sent = pickle.dumps(held.for_torch())
    assert len(sent) > held.images.nbytes
    held.path.unlink()
    np.testing.assert_array_equal(pickle.loads(sent).packed.images, held.images)


def test_pack_sends_a_part_of_a_map_and_a_copy_as_they_are(mapped):
    for images in (mapped.images[5:9], np.array(mapped.images[::2])):
        part = dataclasses.replace(mapped, images=images, labels=mapped.labels[: len(images)])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(part)).images, images)


def test_pack_that_went_away_on_the_way_says_so(mapped):
    sent = pickle.dumps(mapped)
    mapped.path.unlink()
    with pytest.raises(WorkError, match=r"npy: the pack is gone or cut; pack again$"):
        pickle.loads(sent)


def test_for_torch_is_a_data_set_of_torch(mapped):
    rows = np.array([39, 3, 3])
    data = mapped.for_torch(rows)
    assert isinstance(data, torch.utils.data.Dataset) and len(data) == 3
    assert data.targets.tolist() == mapped.labels[rows].tolist()
    assert data.classes == list(mapped.dataset.class_names)
    image, label = data[0]
    assert (image.dtype, image.shape, label) == (torch.float32, (3, 64, 64), 7)
    expected = torch.tensor(mapped.images[39] / 255, dtype=torch.float32).permute(2, 0, 1)
    torch.testing.assert_close(image, expected)
    assert len(mapped.for_torch()) == 40 and len(mapped.for_torch([])) == 0


def test_for_torch_gives_bytes_and_transforms(mapped):
    stored = mapped.for_torch(pixels="uint8")[7][0]
    np.testing.assert_array_equal(stored.permute(1, 2, 0), mapped.images[7])
    assert mapped.for_torch([7], transform=brightest)[0][0].shape == (1, 64, 64)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_for_torch_feeds_a_loader_of_two_processes(mapped, method):
    rows = np.arange(39, -1, -1)
    data = mapped.for_torch(rows, transform=brightest, pixels="uint8")
    assert len(pickle.dumps(data)) < 20_000
    loader = DataLoader(
        data,
        batch_size=16,
        num_workers=2,
        multiprocessing_context=multiprocessing.get_context(method),
    )
    images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert labels.tolist() == mapped.labels[rows].tolist()
    np.testing.assert_array_equal(images[:, 0], mapped.images[rows].max(axis=3))


def test_for_torch_takes_a_sampler_of_torch(mapped):
    data = mapped.for_torch()
    weights = (1 / torch.bincount(torch.from_numpy(data.targets)).double())[data.targets]
    sampler = WeightedRandomSampler(weights, 800, generator=torch.Generator().manual_seed(0))
    drawn = torch.cat([labels for _, labels in DataLoader(data, batch_size=80, sampler=sampler)])
    # Each of 8 classes is expected 100 times of 800, standard deviation 9.4; of the pack alone
    # the largest class, 14 of 40, would be drawn 280 times.
    assert (torch.bincount(drawn) - 100).abs().max() < 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": [0, 40]}, r"^rows: expected 0 to 39, got 0 to 40; "),
        ({"rows": [-1]}, r"^rows: expected 0 to 39, got -1 to -1; "),
        ({"rows": [0.5]}, r"^rows: expected whole numbers, got float64$"),
        ({"pixels": "half"}, r"^pixels: expected one of 'float', 'uint8', got 'half'$"),
    ],
)
def test_for_torch_refuses(mapped, options, message):
    with pytest.raises(InputError, match=message):
        TorchPack(mapped, **options)
