import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fopro_lab.data import open_dataset, pack
from fopro_lab.data import packing as packing_module
from fopro_lab.data.packing import cache_folder
from fopro_lab.errors import InputError, WorkError
from tests.data.toys import write_pictures


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def test_pack_holds_the_pixels_of_pil_exactly(tmp_path):
    dataset = open_dataset(write_pictures(tmp_path / "skin", side=30))
    packed = pack(dataset, 16, cache=tmp_path / "cache")
    assert packed.images.dtype == np.uint8
    assert packed.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for row, path in enumerate(dataset.table["path"]):
        with Image.open(path) as opened:
            expected = np.asarray(opened.resize((16, 16), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(packed.images[row], expected)


def test_pack_is_read_only_and_a_memory_map(tmp_path):
    packed = pack(open_dataset("phantom", pictures=24), 16, cache=tmp_path)
    assert isinstance(packed.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        packed.images[0] = 0


def test_pack_gives_items_to_a_loader(tmp_path):
    packed = pack(open_dataset("phantom", pictures=24), 16, cache=tmp_path)
    image, label = packed[23]
    assert (image.dtype, tuple(image.shape), label) == (torch.float32, (3, 16, 16), 7)
    expected = torch.tensor(packed.images[23] / 255, dtype=torch.float32).permute(2, 0, 1)
    torch.testing.assert_close(image, expected)
    images, labels = next(iter(torch.utils.data.DataLoader(packed, batch_size=5)))
    assert (tuple(images.shape), len(labels)) == ((5, 3, 16, 16), 5)


def test_pack_decodes_once(tmp_path, monkeypatch):
    dataset = open_dataset(write_pictures(tmp_path / "skin"))
    first = pack(dataset, 16, cache=tmp_path / "cache")
    monkeypatch.setattr(packing_module, "_write", None)  # a second decoding would fail
    again = pack(dataset, 16, cache=tmp_path / "cache")
    np.testing.assert_array_equal(first.images, again.images)


def test_pack_is_another_for_another_size_file_or_decoder(tmp_path, monkeypatch):
    root = write_pictures(tmp_path / "skin")
    cache = tmp_path / "cache"

    def count() -> int:
        return len(list(cache.glob("*.npy")))

    pack(open_dataset(root), 16, cache=cache)
    pack(open_dataset(root), 17, cache=cache)
    assert count() == 2
    os.utime(root / "class0" / "0.png", ns=(1, 1))  # same length, changed in place
    pack(open_dataset(root), 16, cache=cache)
    assert count() == 3
    monkeypatch.setattr(packing_module, "decoder_version", lambda: "another")
    pack(open_dataset(root), 16, cache=cache)
    assert count() == 4


def test_pack_takes_an_own_reader(tmp_path):
    toy = open_dataset("phantom", pictures=24).subset(range(4))
    object.__setattr__(toy, "reader", lambda row, size: np.full((size, size, 3), row, np.uint8))
    assert pack(toy, 8, cache=tmp_path).images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_pack_lists_all_damaged_pictures_in_one_line(tmp_path):
    root = write_pictures(tmp_path / "skin")
    damage(root / "class0" / "1.png")
    (root / "class1" / "2.png").write_text("no picture")
    message = (
        r"^skin: 2 of 6 pictures cannot be read: .*class0/1.png: cannot be decoded \(.*; "
        r".*class1/2.png: cannot be decoded \(.*Replace or remove them$"
    )
    for _ in range(2):  # the second time from what was noted
        with pytest.raises(InputError, match=message) as caught:
            pack(open_dataset(root), 16, cache=tmp_path / "cache")
        assert "\n" not in str(caught.value)


def test_pack_leaves_damaged_pictures_out_when_asked(tmp_path):
    root = write_pictures(tmp_path / "skin")
    damage(root / "class0" / "1.png")
    packed = pack(open_dataset(root), 16, cache=tmp_path / "cache", leave_out=True)
    assert list(packed.left_out) == ["class0/1.png"]
    assert len(packed) == len(packed.dataset) == len(packed.images) == 5
    assert "class0/1.png" not in set(packed.dataset.table["image"])
    for row in range(5):
        np.testing.assert_array_equal(packed.images[row], packed.dataset.read(row, 16))


def test_pack_refuses_when_nothing_can_be_read(tmp_path):
    root = write_pictures(tmp_path / "skin", each=1)
    for path in root.glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"skin: 2 of 2 pictures cannot be read"):
        pack(open_dataset(root), 16, cache=tmp_path / "cache", leave_out=True)
    assert not list((tmp_path / "cache").glob("*.npy"))


def test_pack_shortens_a_long_list(tmp_path):
    root = write_pictures(tmp_path / "skin", each=15)
    for path in root.glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"; and 10 more\. Replace or remove them"):
        pack(open_dataset(root), 16, cache=tmp_path / "cache")


def test_pack_names_a_picture_that_went_away(tmp_path):
    root = write_pictures(tmp_path / "skin")
    dataset = open_dataset(root)
    (root / "class0" / "0.png").unlink()
    with pytest.raises(InputError, match=r"class0/0.png: no such file"):
        pack(dataset, 16, cache=tmp_path / "cache")


def test_pack_on_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packing_module, "_write_header", full)
    with pytest.raises(WorkError, match=r"the disk is full; free some space and start again"):
        pack(open_dataset("phantom", pictures=24), 16, cache=tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] in ([], [".lock"])


def test_pack_says_when_the_cache_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match=r"file: cannot be used as cache"):
        pack(open_dataset("phantom", pictures=24), 16, cache=tmp_path / "file")


def test_pack_repairs_a_pack_that_was_cut(tmp_path):
    dataset = open_dataset("phantom", pictures=24)
    whole = np.array(pack(dataset, 16, cache=tmp_path).images)
    file = next(tmp_path.glob("*.npy"))
    os.truncate(file, 1000)
    np.testing.assert_array_equal(pack(dataset, 16, cache=tmp_path).images, whole)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_pack_that_is_stopped_leaves_no_pack(tmp_path, how):
    code = textwrap.dedent(
        """
        import sys, time
        from fopro_lab.data import open_dataset, pack
        dataset = open_dataset("phantom", pictures=24)
        def slow(row, size):
            print(row, flush=True)
            time.sleep(30)
        object.__setattr__(dataset, "reader", slow)
        pack(dataset, 16, cache=sys.argv[1])
        """
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it is in the middle of packing
        process.send_signal(how)
        process.wait(timeout=20)
    assert not list(tmp_path.glob("*.npy")) + list(tmp_path.glob("*.json"))
    assert len(pack(open_dataset("phantom", pictures=24), 16, cache=tmp_path)) == 24
    assert not list(tmp_path.glob(".*.part"))  # what the killed one left is cleared away


def test_pack_of_two_processes_is_written_by_one(tmp_path):
    code = textwrap.dedent(
        """
        import sys
        from fopro_lab.data import open_dataset, pack
        from fopro_lab.data import packing
        write = packing._write
        packing._write = lambda *a, **k: (print("wrote"), write(*a, **k))[1]
        print(pack(open_dataset("phantom", pictures=60), 16, cache=sys.argv[1]).images.sum())
        """
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(2)
    ]
    output = [process.communicate(timeout=60)[0].split() for process in running]
    assert sum(lines.count("wrote") for lines in output) == 1
    assert output[0][-1] == output[1][-1]


def test_pack_in_several_processes_from_a_script_without_a_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from fopro_lab.data import open_dataset, pack\n"
        "dataset = open_dataset('phantom', pictures=70)\n"
        "print(len(pack(dataset, 16, cache=sys.argv[1], jobs=2)))\n"
    )
    command = [sys.executable, str(script), str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["70"], done.stderr
    dataset = open_dataset("phantom", pictures=70)
    two = pack(dataset, 16, cache=tmp_path / "two")
    one = pack(dataset, 16, cache=tmp_path / "one", jobs=1)
    np.testing.assert_array_equal(one.images, two.images)


def test_pack_notes_what_it_holds(tmp_path):
    dataset = open_dataset("phantom", pictures=24)
    pack(dataset, 16, cache=tmp_path)
    note = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert (note["dataset"], note["size"], note["fingerprint"]) == (
        "phantom-24",
        16,
        dataset.fingerprint,
    )


def test_cache_folder_is_given_or_set_or_usual(monkeypatch):
    assert cache_folder("a") == Path("a")
    monkeypatch.setenv("FOPRO_CACHE", "~/b")
    assert cache_folder() == Path.home() / "b"
    monkeypatch.delenv("FOPRO_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "fopro_lab"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, r"^size: expected 8 to 2048 pixels, got 4$"),
        ({"size": 16, "jobs": -1}, r"^jobs: expected 0 for one a core or a positive number"),
    ],
)
def test_pack_refuses(options, message):
    with pytest.raises(InputError, match=message):
        pack(open_dataset("phantom", pictures=24), **options)


@pytest.mark.real
def test_pack_of_ham10000_opens_quickly(shared, tmp_path):
    dataset = open_dataset(shared / "data" / "ham10000", pictures=200)
    pack(dataset, 32, cache=tmp_path, progress=False)
    start = time.process_time()
    packed = pack(dataset, 32, cache=tmp_path)
    assert time.process_time() - start < 0.2
    with Image.open(dataset.table["path"].iloc[7]) as opened:
        expected = np.asarray(opened.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(packed.images[7], expected)
