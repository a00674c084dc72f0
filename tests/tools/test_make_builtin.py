import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from fopro_lab.models.backbones import SmallResNet
from fopro_lab.models.weights import load_matching, read_weights
from tests.conftest import refuses
from tools.make_builtin import (
    PretrainConfig,
    as_stored,
    held_out_accuracy,
    pretrain,
    read_archive,
    read_natural,
    untrained,
    write_builtin,
)

TINY = {"width": 8, "batch_size": 16, "image_size": 16, "learning_rate": 0.01}


def write_zip(path, *, classes=2, each=20, side=32, colour=0):
    """Write an archive in which a class is a colour."""
    source = np.random.default_rng(0)
    rows = ["image,label"]
    with zipfile.ZipFile(path, "w") as archive:
        for label in range(classes):
            for number in range(each):
                pixels = source.integers(0, 90, (side, side + 4, 3), dtype=np.uint8)
                pixels[..., label + colour] += 150
                stream = io.BytesIO()
                Image.fromarray(pixels).save(stream, "PNG")
                archive.writestr(f"images/{label}-{number}.png", stream.getvalue())
                rows.append(f"{label}-{number}.png,{label}")
        archive.writestr("labels.csv", "\n".join(rows))
    return path


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("natural")
    write_zip(folder / "tinyimagenet32.zip")
    write_zip(folder / "caltech101_30.zip", classes=1, side=96, colour=2)
    return read_natural(PretrainConfig(natural=str(folder)))


def test_the_teacher_learns_and_is_stored_with_its_card(archives, tmp_path, capsys):
    config = PretrainConfig(**TINY, epochs=8, seed=5)
    before = held_out_accuracy(untrained(config, classes=3), archives[0])
    network = pretrain(archives, config)
    after = held_out_accuracy(network, archives[0])
    assert after == {"images": 4, "top1": 1.0, "chance": 1 / 3} and before["top1"] < 1
    assert capsys.readouterr().out.startswith("epoch 1/8  loss ")
    stored = as_stored(network)
    assert {value.dtype for value in stored.values() if value.ndim > 1} == {torch.float16}
    for name, value in network.state_dict().items():  # rounded before its accuracy is measured
        assert torch.equal(stored[name].to(value.dtype), value), name

    card = write_builtin(network, archives, config, advantage={"a": 1}, out=tmp_path)
    written = json.loads((tmp_path / "card.json").read_text())
    assert written == json.loads(json.dumps(card))
    assert card["recipe"] == config.model_dump(exclude={"natural"}) and card["seed"] == 5
    assert [part["training_images"] for part in card["data"]] == [36, 18]
    loaded = SmallResNet(width=8, classes=3)
    weights = read_weights(tmp_path / "builtin.safetensors")
    assert load_matching(loaded, weights)["coverage"] == 1
    assert held_out_accuracy(loaded, archives[1]) == card["data"][1]["held_out"]


def test_a_missing_or_damaged_archive_is_named(tmp_path):
    expected = "expected a zip with labels.csv and images/"
    refuses(rf"tinyimagenet32.zip: {expected}", read_natural, PretrainConfig(natural=str(tmp_path)))
    path = write_zip(tmp_path / "a.zip")
    path.write_bytes(path.read_bytes()[:500])
    refuses(rf"a.zip: {expected}", read_archive, path, sizes=(32,), first_label=0)
