import os
import random

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fopro_lab.errors import InputError
from fopro_lab.io import sha256_file
from fopro_lab.models.weights import CONTAINERS, PREFIXES, load_matching, read_weights
from tests.models.toys import message, weights_of

REFUSES_CODE = (
    "expected tensors alone, got a pickle that asks to run code, which is never done; "
    "ask its publisher for safetensors"
)


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


class Bomb:
    """Whoever unpickles it makes a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_read_weights_gives_tensors_metadata_and_hash(tmp_path):
    path = tmp_path / "a.safetensors"
    state = network().state_dict()
    save_file(state, path, metadata={"mean": "0.5,0.5,0.5"})
    weights = read_weights(path)
    assert weights.metadata == {"mean": "0.5,0.5,0.5"} and weights.path == path
    assert weights.sha256 == sha256_file(path)
    assert weights.state.keys() == state.keys()
    assert all(torch.equal(weights.state[name], state[name]) for name in state)


@pytest.mark.parametrize("container", [None, *CONTAINERS])
def test_read_weights_unwraps_a_published_pickle(tmp_path, container):
    state = network().state_dict()
    content = state if container is None else {container: state, "epoch": 3}
    torch.save(content, tmp_path / "a.pth")
    weights = read_weights(str(tmp_path / "a.pth"))
    assert weights.metadata == {}
    assert all(torch.equal(weights.state[name], state[name]) for name in state)


@pytest.mark.parametrize("zipped", [True, False])
def test_read_weights_refuses_a_pickle_that_holds_code_and_does_not_run_it(tmp_path, zipped):
    path, target = tmp_path / "a.pth", tmp_path / "it_ran"
    content = {"state_dict": {"a": torch.ones(1)}, "hook": Bomb(target)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert message(read_weights, path) == f"weights: {path}: {REFUSES_CODE}"
    assert not target.exists()
    torch.load(path, weights_only=False)  # the file would have done it
    assert target.is_dir()


@pytest.mark.parametrize(("content", "kind"), [([torch.ones(1)], "list"), ({"a": 1}, "dict")])
def test_read_weights_refuses_what_is_no_state_dict(tmp_path, content, kind):
    path = tmp_path / "a.pth"
    torch.save(content, path)
    expected = f"weights: {path}: expected a state dict of tensors, got {kind}"
    assert message(read_weights, path) == expected


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_read_weights_turns_any_damage_into_one_line(tmp_path, suffix):
    # Random bytes, and a changed byte of a good file: the user sees an InputError, never torch's
    # advice to switch its protection off.
    chance = random.Random(0)
    path = tmp_path / f"a.{suffix}"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    good = path.read_bytes()
    for trial in range(100):
        content = bytearray(good if trial % 2 else chance.randbytes(chance.randint(1, 200)))
        content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content)
        try:
            read_weights(path)
        except InputError as error:
            assert str(error).startswith(f"weights: {path}: ")
            assert "\n" not in str(error) and "weights_only" not in str(error)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_load_matching_takes_the_wrappers_prefix_off(prefix):
    trained, filled = network(), network()
    state = {prefix + name: value for name, value in trained.state_dict().items()}
    card = load_matching(filled, weights_of(state | {"queue": torch.ones(3)}))
    assert card == {
        "weights": "toy.safetensors",
        "sha256": "0" * 64,
        "keys_expected": 8,  # four tensors of weights, four of batch norm; the count is left out
        "keys_matched": 8,
        "coverage": 1.0,
    }
    for name, value in trained.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(filled.state_dict()[name], value)


def deep(count):
    return nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(count)))


@pytest.mark.parametrize(("count", "fits"), [(100, True), (99, False)])
def test_load_matching_draws_the_line_at_99_percent(count, fits):
    # One key is missing: 99 of 100 are enough, 98 of 99 are not.
    state = deep(count).state_dict()
    del state["3.weight"]
    if fits:
        assert load_matching(deep(count), weights_of(state))["coverage"] == 1 - 1 / count
    else:
        assert "3.weight" in message(load_matching, deep(count), weights_of(state))


def test_load_matching_lists_what_does_not_fit():
    own = nn.ModuleDict({"body": nn.Linear(2, 2), "fc": nn.Linear(2, 3)})
    state = {"body.weight": torch.ones(2, 2), "fc.weight": torch.ones(9, 2), "extra": torch.ones(1)}
    before = {name: value.clone() for name, value in own.state_dict().items()}
    assert message(load_matching, own, weights_of(state)) == (
        "weights: toy.safetensors: 1 of 4 keys fit (25%, expected 99% or more); missing or of "
        "another shape: body.bias, fc.weight, fc.bias; only in the file: extra; "
        "is it this architecture?"
    )
    assert all(torch.equal(own.state_dict()[name], value) for name, value in before.items())
