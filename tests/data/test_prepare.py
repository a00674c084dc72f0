"""From a config to images, and the command that packs them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fopro_lab.config import DataConfig
from fopro_lab.data import prepare
from fopro_lab.data.pack import pack_from
from tests.data.toys import write_images


@pytest.fixture
def skin(tmp_path, monkeypatch) -> Path:
    """Write 2 classes of 12 images, two of them damaged, and begin with an empty cache."""
    monkeypatch.setenv("FOPRO_CACHE", str(tmp_path / "cache"))
    root = write_images(tmp_path / "skin", each=12)
    (root / "class0" / "3.png").write_bytes(b"")
    (root / "class1" / "5.png").write_bytes(b"no image")
    return root


def test_pack_from_passes_every_option(skin):
    with Image.open(skin / "class0" / "0.png") as opened:
        expected = np.asarray(opened.resize((16, 16), Image.Resampling.LANCZOS))
    options = {"dataset": str(skin), "image_size": 16, "interpolation": "lanczos"}
    packed = pack_from(DataConfig(**options, unusable="leave-out"), progress=False)
    np.testing.assert_array_equal(packed.images[0], expected)
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
    for row in (0, 3, 21):  # behind what is left out, too
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
    assert code == 0 and output.startswith("packed 22 images of 16 px\n")
    assert "class1/5.png: cannot be decoded (cannot identify image file the file)" in output
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
    assert code == 0 and "damaged; it is made again" in stderr
    assert path.read_bytes() == whole
