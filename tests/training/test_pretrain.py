import errno
import io
import json
import os
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from fopro_lab.config import PretrainConfig
from fopro_lab.errors import InputError, WorkError
from fopro_lab.models.backbones import SmallResNet
from fopro_lab.models.weights import load_matching, read_weights
from tools.natural import read_archive
from tools.pretrain import (
    as_stored,
    held_out_accuracy,
    pretrain,
    read_natural,
    untrained,
    write_builtin,
)

TINY = {"width": 8, "batch_size": 16, "epochs": 2, "image_size": 16, "learning_rate": 0.01}


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


def config(**settings):
    return PretrainConfig(**TINY | settings)


def weights_of(network):
    return torch.cat([value.flatten().float() for value in network.state_dict().values()])


def test_archives_number_their_classes_one_after_the_other(archives):
    tiny, caltech = archives
    assert [len(part.pyramid) for part in archives] == [1, 4]
    assert [level.shape[-1] for level in caltech.pyramid] == [32, 48, 64, 96]
    assert set(tiny.labels.tolist()) == {0, 1} and set(caltech.labels.tolist()) == {2}
    # Each tenth image of a class is held out: 2 of 20.
    assert [int(part.held_out.sum()) for part in archives] == [4, 2]


def test_training_learns_and_rounds_as_stored(archives, tmp_path, capsys):
    recipe = config(epochs=8)
    before = held_out_accuracy(untrained(recipe, classes=3), archives[0])
    network = pretrain(archives, recipe, checkpoint=tmp_path / "c.pt")
    after = held_out_accuracy(network, archives[0])
    assert after == {"images": 4, "top1": 1.0, "chance": 1 / 3} and before["top1"] < 1
    assert not network.training
    stored = as_stored(network)
    assert {value.dtype for value in stored.values() if value.ndim > 1} == {torch.float16}
    for name, value in network.state_dict().items():
        assert torch.equal(stored[name].to(value.dtype), value), name
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and lines[0].startswith("epoch 1/8  loss ")


def test_a_stopped_training_goes_on_to_the_same_weights(archives, tmp_path, monkeypatch):
    whole = pretrain(archives, config(), checkpoint=tmp_path / "a.pt")
    from tools import pretrain as module

    save = module._save

    def save_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain(archives, config(), checkpoint=tmp_path / "b.pt")
    monkeypatch.setattr(module, "_save", save)
    torch.manual_seed(99)
    resumed = pretrain(archives, config(), checkpoint=tmp_path / "b.pt")
    assert torch.equal(weights_of(resumed), weights_of(whole))


def test_a_finished_training_is_not_repeated(archives, tmp_path, capsys):
    first = pretrain(archives, config(), checkpoint=tmp_path / "a.pt")
    capsys.readouterr()
    again = pretrain(archives, config(), checkpoint=tmp_path / "a.pt")
    assert capsys.readouterr().out == ""
    assert torch.equal(weights_of(first), weights_of(again))


def test_another_recipe_or_damage_is_said(archives, tmp_path):
    path = tmp_path / "a.pt"
    pretrain(archives, config(), checkpoint=path)
    with pytest.raises(InputError) as caught:
        pretrain(archives, config(seed=1), checkpoint=path)
    assert str(caught.value) == (
        f"{path}: belongs to another recipe; give another --out or remove it"
    )
    for content in (b"", b"junk", path.read_bytes()[:-9]):
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            pretrain(archives, config(), checkpoint=path)
        assert str(caught.value) == f"{path}: expected a checkpoint of this command; remove it"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(InputError, match="expected a checkpoint of this command"):
        pretrain(archives, config(), checkpoint=path)


def test_a_full_disk_leaves_no_checkpoint(archives, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkError, match="the disk is full"):
        pretrain(archives, config(epochs=1), checkpoint=tmp_path / "a.pt")
    assert list(tmp_path.iterdir()) == []


def test_the_file_and_its_card_say_what_was_done(archives, tmp_path):
    recipe = config(epochs=1, seed=5)
    network = pretrain(archives, recipe, checkpoint=tmp_path / "c.pt")
    advantage = {"ham10000": {"trained": 0.5, "untrained": 0.4}}
    card = write_builtin(network, archives, recipe, advantage=advantage, out=tmp_path / "out")
    assert json.loads((tmp_path / "out/card.json").read_text()) == card | {
        "mean": list(card["mean"]), "std": list(card["std"])
    }  # fmt: skip
    assert card["recipe"] == recipe.model_dump(exclude={"natural"}) and card["seed"] == 5
    assert card["advantage_over_untrained"] == advantage
    assert [part["training_images"] for part in card["data"]] == [36, 18]
    assert [part["sha256"] for part in card["data"]] == [part.sha256 for part in archives]
    loaded = SmallResNet(width=8, classes=3)
    weights = read_weights(tmp_path / "out/builtin.safetensors")
    assert load_matching(loaded, weights)["coverage"] == 1
    assert held_out_accuracy(loaded, archives[1]) == card["data"][1]["held_out"]
    for name, value in network.named_parameters():
        assert torch.equal(loaded.get_parameter(name), value), name


def test_the_untrained_network_is_the_start_of_the_trained_one():
    one, two, other = (untrained(config(seed=seed), classes=3) for seed in (1, 1, 2))
    assert torch.equal(weights_of(one), weights_of(two))
    assert not torch.equal(weights_of(one), weights_of(other))


def test_a_missing_or_damaged_archive_is_said(tmp_path):
    with pytest.raises(InputError, match=r"tinyimagenet32.zip: expected a zip with labels.csv"):
        read_natural(PretrainConfig(natural=str(tmp_path)))
    path = write_zip(tmp_path / "a.zip")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=r"a.zip: expected a zip with labels.csv and images/"):
        read_archive(path, sizes=(32,), first_label=0)


@pytest.mark.parametrize("table", ["image,label", "image,label\na.png,dog", "image\na.png"])
def test_an_archive_with_another_table_is_said(tmp_path, table):
    path = tmp_path / "a.zip"
    stream = io.BytesIO()
    Image.new("RGB", (32, 32)).save(stream, "PNG")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images/a.png", stream.getvalue())
        archive.writestr("labels.csv", table)
    with pytest.raises(InputError, match=r"a.zip: expected a zip with labels.csv and images/"):
        read_archive(path, sizes=(32,), first_label=0)
