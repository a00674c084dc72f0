"""Packs: pixels, cache, damage, kills, other processes and other people's loops."""

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, WeightedRandomSampler

from fopro_lab.config import DataConfig
from fopro_lab.data import Dataset, open_dataset, pack, prepare
from fopro_lab.data.augment import read_pixels
from fopro_lab.data.batches import place_images
from fopro_lab.errors import InputError, ShapeError, WorkError
from tests.conftest import fails, refuses
from tests.data.toys import write_images

packing = import_module("fopro_lab.data.pack")  # the package has a function of this name
# Python 3.12 warns of every fork beside a thread; the children here use none.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def with_reader(reader, *, images: int = 100) -> Dataset:
    return replace(open_dataset("phantom", images=images), reader=reader)


def noise(row: int, size: int) -> np.ndarray:
    """Give each row known pixels that cost nothing."""
    return np.random.default_rng(row).integers(0, 256, (size, size, 3), dtype=np.uint8)


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def test_pack_holds_the_pixels_of_pillow_exactly(tmp_path):
    dataset = open_dataset(write_images(tmp_path / "skin", side=30))
    packed = pack(dataset, 16, interpolation="lanczos", cache=tmp_path / "cache")
    assert packed.images.dtype == np.uint8 and packed.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for row, path in enumerate(dataset.table["path"]):
        with Image.open(path) as opened:
            expected = np.asarray(opened.resize((16, 16), Image.Resampling.LANCZOS))
        np.testing.assert_array_equal(packed.images[row], expected)
        np.testing.assert_array_equal(packed.dataset.read(row, 16), expected)


def test_pack_is_another_for_another_size_file_filter_or_decoder(tmp_path, monkeypatch):
    root, paths = write_images(tmp_path / "skin"), set()

    def add(size: int = 16, **options: str) -> None:
        paths.add(pack(open_dataset(root), size, cache=tmp_path / "cache", **options).path)

    add()
    add()
    add(17)
    add(interpolation="box")
    os.utime(root / "class0" / "0.png", ns=(1, 1))  # same length, changed in place
    add()
    monkeypatch.setattr(packing, "decoder_version", lambda *rules: "another")
    add()
    assert len(paths) == 5


def test_pack_lists_all_unreadable_images_in_one_line(tmp_path):
    root = write_images(tmp_path / "skin", each=12)
    damage(root / "class0" / "1.png")
    (root / "class1" / "2.png").write_text("no image")
    message = (
        r"^skin: 2 of 24 images cannot be read: .*class0/1.png: cannot be decoded \(.*; "
        r".*class1/2.png: cannot be decoded \(.*Replace or remove them, or "
        r"continue without: unusable=leave-out$"
    )
    for _ in range(2):  # the second time from the note
        with pytest.raises(InputError, match=message) as caught:
            pack(open_dataset(root), 16, cache=tmp_path / "cache")
        assert "\n" not in str(caught.value)
    for path in root.glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"24 of 24 images .*; and 21 more\. Replace or remove"):
        pack(open_dataset(root), 8, cache=tmp_path / "cache", leave_out=True)
    assert not list((tmp_path / "cache").glob("*-8-*.npy"))


def test_pack_names_an_image_that_went_away_and_takes_it_when_it_is_back(tmp_path):
    root = write_images(tmp_path / "skin")
    dataset = open_dataset(root)
    content = (root / "class0" / "0.png").read_bytes()
    (root / "class0" / "0.png").unlink()
    refuses(r"class0/0.png: no such file", pack, dataset, 16, cache=tmp_path / "cache")
    (root / "class0" / "0.png").write_bytes(content)
    packed = pack(dataset, 16, cache=tmp_path / "cache")
    np.testing.assert_array_equal(packed.images[0], packed.dataset.read(0, 16))


def test_pack_refuses(tmp_path):
    refuses(r"^size: expected 8 to 2048 pixels", pack, open_dataset("phantom", images=24), 4)
    with pytest.raises(InputError, match=r"^interpolation: expected one of 'box', "):
        pack(open_dataset("phantom", images=24), 16, interpolation="area")
    with pytest.raises(ShapeError, match=r"^reader: expected uint8 \(8, 8, 3\), got float64"):
        pack(with_reader(lambda row, size: np.zeros((8, 8, 3))), 8, cache=tmp_path)


def test_pack_on_a_full_disk_says_so_and_leaves_nothing(tmp_path, monkeypatch):
    def full(row: int, size: int) -> np.ndarray:
        if row == 70:
            raise OSError(28, "No space left on device")
        return noise(row, size)

    with pytest.raises(WorkError, match=r"the disk is full; free some space and start again"):
        pack(with_reader(full), 8, cache=tmp_path, progress=False)
    assert {path.suffix for path in tmp_path.iterdir()} == {".lock"}


def test_pack_of_several_processes_is_written_by_one_and_read_whole(tmp_path):
    def counted(row: int, size: int) -> np.ndarray:
        with open(tmp_path / "decoded", "ab") as stream:
            stream.write(b"x")
        return noise(row, size)

    dataset = with_reader(counted)

    def work() -> None:
        packed = pack(dataset, 8, cache=tmp_path / "cache", jobs=1, progress=False)
        np.testing.assert_array_equal(packed.images[99], noise(99, 8))

    running = [multiprocessing.get_context("fork").Process(target=work) for _ in range(5)]
    for process in running:
        process.start()
    for process in running:
        process.join(timeout=60)
    assert [process.exitcode for process in running] == [0] * 5
    assert (tmp_path / "decoded").read_bytes() == b"x" * 100


@pytest.mark.parametrize("fault", ["shortened", "note lost", "note torn"])
def test_a_damaged_pack_is_made_again(tmp_path, fault):
    dataset = with_reader(noise)
    reading = pack(dataset, 8, cache=tmp_path)
    path, note = reading.path, reading.path.with_suffix(".json")
    whole, before = path.read_bytes(), np.array(reading.images[:50])
    if fault == "shortened":
        path.write_bytes(whole[:-1])
    elif fault == "note lost":  # as after a kill between the two files
        note.unlink()
    else:
        note.write_text("{")
    assert pack(dataset, 8, cache=tmp_path).path.read_bytes() == whole
    np.testing.assert_array_equal(reading.images[:50], before)  # who reads the old file goes on


@pytest.mark.parametrize("how", ["read_pixels", "for_torch", "checked", "resident"])
def test_changed_bytes_of_equal_length_and_time_are_found_at_first_use(tmp_path, how):
    dataset = with_reader(noise)
    path, size = pack(dataset, 64, cache=tmp_path).path, 64 * 64 * 3
    content, times = bytearray(path.read_bytes()), path.stat()
    content[-1] ^= 1  # the last image
    with open(path, "rb+") as stream:
        stream.write(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    packed = pack(dataset, 64, cache=tmp_path)
    each = (1 << 20) // size  # images per checksum
    read = {"read_pixels": lambda rows: read_pixels(packed, rows), "checked": packed.checked}
    read["resident"] = lambda _: place_images(packed, torch.device("cpu"), how="on")
    read["for_torch"] = lambda rows: [packed.for_torch()[row] for row in rows]
    if how != "resident":
        assert len(read[how]([0, each - 1])) == 2  # others are as they were
    rule = f"images {99 // each * each + 1} to .* have changed since they were packed; remove"
    fails(rule, read[how], [0, 99])


def test_a_pack_of_another_data_set_under_this_ones_name_is_not_taken(tmp_path):
    first, second = with_reader(noise), replace(with_reader(noise), fingerprint="another")
    paths = [pack(each, 8, cache=tmp_path).path for each in (first, second)]
    for end in (".npy", ".json"):
        paths[1].with_suffix(end).write_bytes(paths[0].with_suffix(end).read_bytes())
    pack(second, 8, cache=tmp_path)
    assert json.loads(paths[1].with_suffix(".json").read_text())["fingerprint"] == "another"


SCRIPT = """
import os, signal, sys
from dataclasses import replace
from fopro_lab.data import open_dataset, pack

dataset, parent = open_dataset("phantom", images=100), os.getpid()

def deadly(row, size):
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return dataset.read(row, size)

print(len(pack(dataset, 16, cache=sys.argv[1], jobs=2, progress=False)))
try:
    pack(replace(dataset, reader=deadly), 8, cache=sys.argv[2], jobs=2, progress=False)
except Exception as error:
    print(error)
"""


def test_pack_in_several_processes_from_a_script_without_a_guard_and_one_that_is_killed(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    two, killed = tmp_path / "two", tmp_path / "killed"
    command = [sys.executable, str(tmp_path / "script.py"), str(two), str(killed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    number, told = done.stdout.splitlines()
    assert number == "100" and "a process was killed; start again with fewer processes" in told
    assert [path.suffix for path in killed.iterdir()] == [".lock"]
    dataset = open_dataset("phantom", images=100)
    one = pack(dataset, 16, cache=tmp_path / "one", jobs=1)
    np.testing.assert_array_equal(one.images, pack(dataset, 16, cache=two).images)


@pytest.fixture(scope="module")
def packed():
    return pack(open_dataset("phantom", images=40), 64, progress=False)


def test_pack_is_sent_to_other_processes_without_its_pixels(packed, tmp_path):
    sent = pickle.dumps(packed)
    assert len(sent) < 20_000 < packed.images.nbytes  # 10 kB of names; pixels are 491 kB
    np.testing.assert_array_equal(pickle.loads(sent).images, packed.images)
    own = pack(with_reader(noise), 8, cache=tmp_path)
    sent = pickle.dumps(replace(own, dataset=packed.dataset))
    own.path.unlink()
    fails(r"npy: the pack is gone; pack again$", pickle.loads, sent)


def test_for_torch_feeds_loaders_and_samplers_also_when_sent_to_another_process(packed):
    rows = np.arange(39, -1, -1)
    data = packed.for_torch(rows)
    sent = pickle.dumps(data)  # as to a loader's spawned process
    assert len(sent) < 20_000
    loader = DataLoader(pickle.loads(sent), batch_size=16)
    images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert labels.tolist() == packed.labels[rows].tolist()
    np.testing.assert_array_equal((255 * images.permute(0, 2, 3, 1)).round(), packed.images[rows])
    weights = (1 / torch.bincount(torch.from_numpy(data.targets)).double())[data.targets]
    sampler = WeightedRandomSampler(weights, 80, generator=torch.Generator().manual_seed(0))
    assert sum(len(y) for _, y in DataLoader(data, batch_size=80, sampler=sampler)) == 80
    image, label = packed.for_torch([39, 3])[0]
    expected = torch.tensor(packed.images[39] / 255, dtype=torch.float32).permute(2, 0, 1)
    torch.testing.assert_close(image, expected)
    assert label == packed.labels[39]


# From a config to images, and the command that packs them.


@pytest.fixture
def skin(tmp_path, monkeypatch) -> Path:
    """Write 2 classes of 12 images, two of them damaged, and begin with an empty cache."""
    monkeypatch.setenv("FOPRO_CACHE", str(tmp_path / "cache"))
    root = write_images(tmp_path / "skin", each=12)
    (root / "class0" / "3.png").write_bytes(b"")
    (root / "class1" / "5.png").write_bytes(b"no image")
    return root


def test_pack_from_passes_every_option(skin):
    options = {"dataset": str(skin), "image_size": 16, "interpolation": "lanczos"}
    packed = packing.pack_from(DataConfig(**options, unusable="leave-out"), progress=False)
    assert list(packed.left_out) == ["class0/3.png", "class1/5.png"]
    note = json.loads(packed.path.with_suffix(".json").read_text())
    assert note["decoder"].startswith("rgb8-3 exact lanczos pillow")


def test_prepare_says_in_the_protocol_that_images_are_left_out(skin):
    config = DataConfig(dataset=str(skin), image_size=16, unusable="leave-out")
    rest = "images/val0.15-test0.25/seed0"
    packed, split = prepare(config, progress=False)
    rows = np.concatenate([split.train, split.val, split.test])
    assert sorted(rows) == list(range(22)) and len(packed) == 22
    assert split.protocol == f"skin-without2/{rest}"
    assert split.notes == ("left out, cannot be read: 2 images",)
    for row in (0, 3, 21):  # after what is left out, too
        np.testing.assert_array_equal(packed.images[row], packed.dataset.read(row, 16))
    held = packed.dataset.fingerprint
    write_images(skin, each=12)
    packed, split = prepare(config, progress=False)
    assert split.protocol == f"skin/{rest}" and split.notes == ()
    assert packed.dataset.fingerprint != held


def test_data_pack_says_what_was_left_out_and_why(fopro, skin):
    words = ("data", "pack", "--set", f"dataset={skin}", "--set", "image_size=16")
    code, _, stderr = fopro(*words)
    assert code == 2 and "2 of 24 images cannot be read" in stderr
    words = (*words, "--set", "unusable=leave-out")
    code, output, _ = fopro(*words)
    assert code == 0 and "images         22\nsize           16\n" in output
    assert "class1/5.png: cannot be decoded (cannot identify image file)" in output
    code, output, _ = fopro(*words, "--json")
    facts = json.loads(output)
    assert code == 0 and list(facts["left out"]) == ["class0/3.png", "class1/5.png"]
    assert (facts["images"], facts["bytes"]) == (22, 22 * 16 * 16 * 3)
    assert Path(facts["file"]).stat().st_size == facts["bytes"] + 128


def test_data_pack_verifies_and_mends(fopro, skin):
    words = ("data", "pack", "--set", "images=40", "--set", "image_size=16", "--verify")
    code, output, stderr = fopro(*words, "--json")
    facts = json.loads(output)
    assert code == 0 and facts["checksums"] == "hold" and not stderr
    path = Path(facts["file"])
    whole = path.read_bytes()
    path.write_bytes(whole[:5000] + b"\0" * 100 + whole[5100:])
    code, _, stderr = fopro(*words)
    assert code == 0 and "damaged or of an earlier version; it is made again" in stderr
    assert path.read_bytes() == whole
