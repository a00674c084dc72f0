import argparse
import copy
import datetime
import os
import pathlib
import random
import shutil
import zipfile

import joblib
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fopro_lab.errors import InputError
from fopro_lab.io import sha256_file
from fopro_lab.models.weights import load_matching, read_weights
from tests.conftest import complaint
from tests.models.toys import weights_of


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


class Bomb:
    """Whoever unpickles it calls a function that makes a folder."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", "", ".SAFETENSORS"])
def test_read_weights_gives_tensors_metadata_and_hash(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    state = network().state_dict()
    save_file(state, path, metadata={"mean": "0.5,0.5,0.5"})
    weights = read_weights(path)
    assert weights.metadata == {"mean": "0.5,0.5,0.5"} and weights.path == path
    assert weights.sha256 == sha256_file(path)
    assert weights.state.keys() == state.keys()
    assert all(torch.equal(weights.state[name], state[name]) for name in state)


class Config:
    """A user's class, which a pickle names and no reader knows."""


OBJECTS = {
    "namespace": lambda: argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("/data")),
    "numpy scalar": lambda: np.float64(0.5),
    "numpy array": lambda: np.ones(3),
    "time": lambda: datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
    "class": lambda: torch.optim.SGD,
    "instance": Config,
    "set and complex": lambda: [{1, 2}, 1j, range(3), slice(1)],
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", [*OBJECTS, "module"])
def test_tensors_beside_any_object_are_read(tmp_path, kind, zipped):
    path, net = tmp_path / "a.ckpt", network()
    content = net if kind == "module" else {"model": net.state_dict(), "more": OBJECTS[kind]()}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    if kind == "module" and not zipped:  # a whole network in the format of before 2020
        assert "got a pickle, as of joblib, which" in complaint(read_weights, path)
        return
    card = load_matching(filled := network(), read_weights(path))
    assert same(filled, net) and card["coverage"] == 1


def same(network, other):
    others = other.state_dict()
    return all(
        torch.equal(value, others[name])
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    )


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_runs_nothing_and_the_card_names_what_was_not_run(tmp_path, zipped):
    path, target = tmp_path / "a.pth", tmp_path / "it_ran"
    (tmp_path / "empty").mkdir()
    content = {"hook": Bomb(shutil.copytree, str(tmp_path / "empty"), str(target))}
    content["state_dict"] = network().state_dict()
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert load_matching(network(), read_weights(path))["not_run"] == ["shutil.copytree"]
    assert not target.exists()
    torch.load(path, weights_only=False)  # the file would have done it
    assert target.is_dir()
    torch.save({"hook": Bomb(os.rmdir, str(target))}, path)  # of the system's own: refused
    told = complaint(read_weights, path)
    assert "or with code, which begins" in told and ", that would call " in told
    assert target.is_dir()


@pytest.mark.parametrize("packed", [0, 3])
def test_a_file_of_joblib_is_named_and_runs_nothing(tmp_path, packed):
    target = tmp_path / "it_ran"
    content = {"weight": np.ones(3), "hook": Bomb(os.mkdir, str(target))}
    joblib.dump(content, tmp_path / "a.joblib", compress=packed)
    told = complaint(read_weights, tmp_path / "a.joblib")
    assert ("got zlib" if packed else "got a pickle, as of joblib, which") in told
    assert not target.exists()


class Crafted:
    """A tensor whose shape reaches beyond its storage, beside what torch refuses to read."""

    def __init__(self, shape, offset):
        self.arguments = (torch.ones(4).untyped_storage(), offset, shape, (1,), False, {})

    def __reduce__(self):
        storage = torch.storage.TypedStorage(
            wrap_storage=self.arguments[0], dtype=torch.float32, _internal=True
        )
        return torch._utils._rebuild_tensor_v2, (storage, *self.arguments[1:])


@pytest.mark.parametrize(("shape", "offset"), [((1 << 40,), 0), ((4,), 4), ((4,), -1)])
def test_a_tensor_beyond_its_storage_is_damage(tmp_path, shape, offset):
    path = tmp_path / "a.pth"
    torch.save({"a": Crafted(shape, offset), "more": Config()}, path)
    told = complaint(read_weights, path)
    assert "or a file of torch.save, got a damaged file of torch.save, or with code" in told


def test_a_file_that_unpacks_to_more_than_it_is_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as whole:
        with zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
            for name in whole.namelist():
                bomb.writestr(name, whole.read(name))
    assert "got a damaged file of torch.save" in complaint(read_weights, tmp_path / "b.pth")


OTHER_FILES = {  # content, or the names in a zip archive
    "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "web page": b"\n<!DOCTYPE html><html><body>404",
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "ONNX": b"\x08\x07\x12\x07pytorch" + bytes(64),
    "gzip": b"\x1f\x8b\x08" + bytes(64),
    "JSON": b'{"weight_map": {}, "metadata": {}}',
    "empty": b"",
    "TorchScript": ("net/data.pkl", "net/constants.pkl", "net/code/__torch__.py", "net/version"),
    "numpy": ("a.npy",),
    "zip archive": ("model.pth",),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", OTHER_FILES)
def test_other_files_are_refused_with_their_first_bytes(tmp_path, kind, suffix):
    path, content = tmp_path / f"a{suffix}", OTHER_FILES[kind]
    if isinstance(content, tuple):
        with zipfile.ZipFile(path, "w") as archive:
            for name in content:
                archive.writestr(name, b"0")
    else:
        path.write_bytes(content)
    told = complaint(read_weights, path)
    assert told.startswith(f"weights: {path}: expected safetensors or a file of torch.save, got ")
    named = {"git-lfs": "Git LFS", "numpy": "NumPy's .npz", "empty": "another or damaged"}
    named["TorchScript"] = "a damaged file of torch.save, or with code"
    assert named.get(kind, kind) in told.partition(", got ")[2]
    assert repr(path.read_bytes()[:16]) in told and "weights_only" not in told and "\n" not in told


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_read_weights_turns_any_damage_into_one_line(tmp_path, suffix):
    # Random bytes, and a changed byte of a good file: the user sees an InputError, never torch's
    # advice to switch its protection off.
    chance = random.Random(0)
    path = tmp_path / f"a.{suffix}"
    torch.save({"a": torch.ones(3), "b": Config()}, path, _use_new_zipfile_serialization=False)
    good = path.read_bytes()
    for trial in range(200):
        content = bytearray(good if trial % 2 else chance.randbytes(chance.randint(1, 200)))
        content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content)
        try:
            read_weights(path)
        except InputError as error:
            assert str(error).startswith(f"weights: {path}: ")
            assert "\n" not in str(error) and "weights_only" not in str(error)


WRAPPED = [
    "", "module.", "model.", "encoder_q.", "module.encoder_q.", "teacher.backbone.", "_orig_mod.",
    "visual.trunk.", "backbone.0.", "module._orig_mod.model.", "net.features.encoder.",
]  # fmt: skip


@pytest.mark.parametrize("prefix", WRAPPED)
@pytest.mark.parametrize("containers", [(), ("state_dict",), ("a", "b", "model")])
def test_load_matching_derives_the_prefix(tmp_path, prefix, containers):
    trained, filled = network(), network()
    content = {prefix + name: value for name, value in trained.state_dict().items()}
    content |= {"epoch": 3, "queue": torch.ones(3)}  # numbers and tensors beside it
    for container in reversed(containers):
        content = {container: content}
    content["optimizer"] = {"state": {0: {"step": torch.ones(9)}}}
    torch.save(content, tmp_path / "a.pth")
    card = load_matching(filled, read_weights(tmp_path / "a.pth"))
    assert same(filled, trained)
    # Four tensors of weights, four of batch norm; the count of batches is left out.
    assert (card["keys_expected"], card["keys_matched"], card["coverage"]) == (8, 8, 1.0)
    assert len(card["left_out"]) == 1 and card["left_out"][0].endswith("queue")
    plain = prefix.replace("_orig_mod.", "")
    assert card.get("prefix", "") == "".join(f"{name}." for name in containers) + plain


@pytest.mark.parametrize(
    ("taken", "beside"),
    [
        ("state_dict_ema.", "state_dict."), ("model_ema.", "model."), ("teacher.", "student."),
        ("ema_model.", "online_model."), ("encoder_q.", "encoder_k."),
        ("base_encoder.", "momentum_encoder."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("turned", [False, True])
def test_of_two_copies_the_evaluated_one_is_taken_and_said(capsys, taken, beside, turned):
    trained, other, filled = network(), network(), network()
    state = {taken + name: value for name, value in trained.state_dict().items()}
    second = {beside + name: value for name, value in other.state_dict().items()}
    card = load_matching(filled, weights_of({**second, **state} if turned else {**state, **second}))
    assert same(filled, trained)
    assert card["prefix"] == taken and card["beside"] == [beside]
    said = capsys.readouterr().err
    assert taken in said and beside in said and said.count("\n") == 1


def test_numbered_children_are_found_and_one_missing_tensor_is_refused_unless_of_the_head():
    named = nn.Sequential()
    for name, layer in zip(("stem", "norm", "flat", "out"), network().children(), strict=True):
        named.add_module(name, layer)
    numbered = {f"backbone.{n}": v for n, v in network().state_dict().items()}
    card = load_matching(named, weights_of(numbered))
    assert torch.equal(named.stem.weight, numbered["backbone.0.weight"]) and card["coverage"] == 1
    net = nn.ModuleDict({str(k): nn.Linear(2, 2) for k in range(60)})
    weights = weights_of(net.state_dict())
    del weights.state["3.bias"]
    assert "119 of 120 tensors fit; missing: 3.bias" in complaint(load_matching, net, weights)
    assert load_matching(net, weights, head=("3",))["keys_matched"] == 118


def test_load_matching_lists_what_does_not_fit_and_changes_nothing():
    own = nn.ModuleDict({"body": nn.Linear(2, 2), "fc": nn.Linear(2, 3)})
    state = {"body.weight": torch.ones(2, 2), "fc.weight": torch.ones(9, 2), "extra": torch.ones(2)}
    before = copy.deepcopy(own)
    assert complaint(load_matching, own, weights_of(state)) == (
        "weights: toy.safetensors: 1 of 4 tensors fit; missing: body.bias, fc.bias; of another "
        "shape: fc.weight (9, 2) for (3, 2); without a place in the network: extra; "
        "is it this architecture?"
    )
    assert same(own, before)


@pytest.mark.parametrize(
    ("name", "shape", "refused"),
    [
        ("body.gamma", (2,), True), ("body.lora.weight", (2, 2), True), ("reg_token", (1, 2), True),
        ("mask_token", (1, 2), False), ("temperature", (), False),
        ("decoder.0.weight", (2, 2), False), ("projector.weight", (2, 2), False),
    ],
)  # fmt: skip
def test_what_has_no_place_is_refused_inside_layers_and_listed_elsewhere(name, shape, refused):
    own = nn.ModuleDict({"body": nn.Linear(2, 2), "fc": nn.Linear(2, 3)})
    weights = weights_of({**own.state_dict(), name: torch.ones(shape)})
    if refused:
        told = complaint(load_matching, own, weights, head=("fc",))
        assert f"without a place in the network: {name}" in told
    else:
        assert load_matching(own, weights, head=("fc",))["left_out"] == [name.split(".")[0]]
    weights.state["fc.0.bias"] = torch.ones(9)
    del weights.state[name]
    assert load_matching(own, weights, head=("fc",))["head_left_out"] == ["fc"]


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0])
def test_a_variance_that_batch_norm_would_hide_is_refused(value):
    own, before = network(), network()
    own.load_state_dict(before.state_dict())
    state = dict(network().state_dict())
    (name,) = (name for name in state if name.endswith("running_var"))
    state[name] = torch.full_like(state[name], value).half()
    told = complaint(load_matching, own, weights_of(state))
    assert f"tensors have numbers that are not finite, or a negative variance: {name}; " in told
    assert "save it in float32 again" in told and same(own, before)
