import errno
import os

import pytest
import torch

from fopro_lab.errors import InputError, WorkError
from fopro_lab.training.run_folder import (
    DAMAGED,
    FILE,
    MARK,
    NEXT,
    PREVIOUS,
    forget_previous,
    load_checkpoint,
    on_cpu,
    save_checkpoint,
)

STATE = {
    "epoch": 3,
    "best": 0.5,
    "rows": [{"epoch": 0, "loss": 1.25}],
    "student": {"weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(7)},
    "optimiser": {"state": {0: {"step": torch.tensor(4.0)}}, "param_groups": [{"betas": (0.9, 1)}]},
}


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_state_comes_back_exactly(tmp_path):
    save_checkpoint(tmp_path, STATE)
    loaded = load_checkpoint(tmp_path)
    assert torch.equal(loaded["student"]["weight"], STATE["student"]["weight"])
    assert loaded["optimiser"] == STATE["optimiser"]
    assert {k: loaded[k] for k in ("epoch", "best", "rows")} == {
        k: STATE[k] for k in ("epoch", "best", "rows")
    }
    assert files(tmp_path) == [FILE]


def test_a_new_folder_has_no_state(tmp_path):
    assert load_checkpoint(tmp_path) is None


def test_the_state_before_survives_a_full_disk(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, {"epoch": 1})

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkError) as caught:
        save_checkpoint(tmp_path, {"epoch": 2})
    assert str(caught.value) == (
        f"{tmp_path / NEXT}: the disk is full; free some space and start again"
    )
    assert load_checkpoint(tmp_path) == {"epoch": 1}
    assert files(tmp_path) == [FILE]


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_damaged_state_is_said(tmp_path, keep):
    save_checkpoint(tmp_path, STATE)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError) as caught:
        load_checkpoint(tmp_path)
    assert str(caught.value) == (
        f"{path}: damaged checkpoint; remove {tmp_path} to start this run afresh"
    )


@pytest.mark.parametrize(
    "content", [b"\x85", b"}", b"\x80\x02R.", b"not a checkpoint", b"\xff" * 9]
)
def test_bytes_that_are_no_checkpoint_are_said(tmp_path, content):
    # The first ones lead torch's unpickler to IndexError and the like.
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(InputError, match="damaged checkpoint"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_never_runs_code(tmp_path):
    target = tmp_path / "it_ran"

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(target),)

    (tmp_path / FILE).parent.mkdir()
    torch.save({"epoch": Bomb()}, tmp_path / FILE)
    with pytest.raises(InputError, match="damaged checkpoint"):
        load_checkpoint(tmp_path)
    assert not target.exists()


def test_on_cpu_copies_in_plain_layout():
    weight = torch.nn.Parameter(torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last))
    copy = on_cpu({"weight": weight})["weight"]
    assert torch.equal(copy, weight) and copy.is_contiguous() and not copy.requires_grad
    with torch.no_grad():
        weight.zero_()
    assert copy.abs().max() > 0


def test_the_state_before_is_kept_beside_the_last(tmp_path):
    for epoch in (1, 2, 3):
        save_checkpoint(tmp_path, {"epoch": epoch})
    assert files(tmp_path) == [FILE, PREVIOUS]
    assert load_checkpoint(tmp_path) == {"epoch": 3}
    (tmp_path / FILE).unlink()  # killed between the two renames
    assert load_checkpoint(tmp_path) == {"epoch": 2}
    forget_previous(tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("place", ["mark", "hash", "first", "middle", "last", "cut", "empty"])
def test_a_damaged_state_is_passed_over_and_never_becomes_the_previous_one(tmp_path, place):
    for epoch in (1, 2):
        save_checkpoint(tmp_path, {**STATE, "epoch": epoch})
    path = tmp_path / FILE
    content = bytearray(path.read_bytes())
    if place in ("cut", "empty"):
        path.write_bytes(content[: len(content) // 2] if place == "cut" else b"")
    else:
        middle = content.index(torch.tensor([3.0]).numpy().tobytes())  # within a weight
        where = {"mark": 0, "hash": len(MARK), "first": 90, "middle": middle, "last": -1}
        content[where[place]] ^= 1
        path.write_bytes(content)
    told = []
    assert load_checkpoint(tmp_path, tell=told.append)["epoch"] == 1
    assert told == [f"{path}: damaged checkpoint, put aside; going on from the one before"]
    assert files(tmp_path) == sorted([DAMAGED, PREVIOUS])
    save_checkpoint(tmp_path, {"epoch": 3})
    (tmp_path / FILE).unlink()
    assert load_checkpoint(tmp_path)["epoch"] == 1  # not the damaged one


def test_if_all_are_damaged_it_is_said(tmp_path):
    for epoch in (1, 2):
        save_checkpoint(tmp_path, {"epoch": epoch})
    for name in (FILE, PREVIOUS):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"previous\.pt: damaged checkpoint; remove"):
        load_checkpoint(tmp_path)
    assert files(tmp_path) == [FILE, PREVIOUS]


def test_a_state_of_before_there_were_hashes_is_still_read(tmp_path):
    (tmp_path / FILE).parent.mkdir()
    torch.save({"epoch": 4}, tmp_path / FILE)
    assert load_checkpoint(tmp_path) == {"epoch": 4}
