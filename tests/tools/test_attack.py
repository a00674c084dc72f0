"""Every row of `make attack` fails where what it attacks does not hold."""

import contextlib
import pickle

import pytest

from fopro_lab.errors import WorkError
from tools import attack

pytestmark = pytest.mark.nightly


def broken(*_, **__):
    raise KeyError("broken")


# What is broken, by the row that must see it, with seeds that reach it.
BROKEN = {
    "killed training": ("tools.attack.state_hash", lambda folder: str(folder), 1),
    "terminated training": ("tools.attack.state_hash", lambda folder: str(folder), 1),
    "lost rank of torchrun": ("tools.attack.state_hash", lambda folder: str(folder), 1),
    "damaged file of a finished run": ("fopro_lab.evaluation.Run.damaged", lambda *_: [], 1),
    "checkpoint of another run": (
        "fopro_lab.training.run_folder.check_identity",
        lambda saved, *_, **__: saved.pop("identity"),
        1,
    ),
    "changed bytes of a pack": ("zlib.crc32", lambda *_: 0, 1),
    "changed bits of a prompt": ("tools.attack.FourierPrompt.load", lambda *_: None, 1),
    "odd weights": (
        "fopro_lab.models.weights._read_pickle",
        lambda opened, _: pickle.load(opened, encoding="latin1"),
        30,
    ),
    "fuzzed options": ("fopro_lab.options.read_value", broken, 3),
    "fuzzed YAML": ("yaml.load", broken, 3),
    "fuzzed data set": ("fopro_lab.checks.examine", broken, 1),
    "fuzzed manifest of a run": ("fopro_lab.evaluation.runs._read_manifest", broken, 1),
    "limited file size": ("tools.attack.in_a_line", lambda *_: False, 1),
    "hostile HTML": ("tools.attack.cleaned", lambda html: html, 3),
    "frequencies of samplers": ("tools.attack.batches", None, 1),
}


def test_every_attack_has_a_way_to_fail():
    assert BROKEN.keys() == attack.ATTACKS.keys()


@pytest.mark.parametrize("name", BROKEN)
def test_an_attack_on_what_is_broken_fails(name, monkeypatch, capsys):
    target, instead, seeds = BROKEN[name]
    if name == "frequencies of samplers":
        draw = attack.batches

        def instead(*given, sampler, **options):
            return draw(*given, **{**options, "sampler": "progressive"})

    monkeypatch.setattr(target, instead)
    codes = []
    for seed in range(seeds):
        argv = ["attack", "--only", name, "--seed", str(seed)]
        monkeypatch.setattr("sys.argv", argv)
        with contextlib.suppress(WorkError):
            codes.append(attack.main())
    assert any(codes), capsys.readouterr()
    assert "| 1 | 1 |" in capsys.readouterr().out


def test_the_whole_of_it_holds(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["attack", "--count", "50"])
    code = attack.main()
    out = capsys.readouterr()
    assert code == 0, out.err
    assert out.out.count("\n") == 2 + len(attack.ATTACKS)
