"""Fixtures for the tests: the real images, if they are there."""

import os
import re
import sys
from functools import partial
from pathlib import Path

import pytest

from fopro_lab import cli
from fopro_lab.errors import InputError, WorkError
from tests.forked import start_kernel

# Packs of tests stay out of the user's own; `make clean` removes them.
CACHE = Path(__file__).resolve().parents[1] / ".pytest_cache" / "fopro_lab"
os.environ.setdefault("FOPRO_CACHE", str(CACHE))


def _line_of(kind, call, /, *arguments, **options) -> str:
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


complaint = partial(_line_of, InputError)  # the one line that a call is refused with
failure = partial(_line_of, WorkError)  # or fails with, though its input was right


def refuses(rule: str, call, /, *arguments, **options) -> None:
    """Expect a call to be refused with one line in which a regular expression is found."""
    assert re.search(rule, complaint(call, *arguments, **options))


def fails(rule: str, call, /, *arguments, **options) -> None:
    """Expect a call to fail, though its input was right, with such a line."""
    assert re.search(rule, failure(call, *arguments, **options))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real images and weights beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"no real images: {folder} is absent")
    return folder


@pytest.fixture
def fopro(monkeypatch, capsys):
    """Run a command in this process: exit code, output, complaint."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fopro", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture
def forked_kernels(monkeypatch):
    """Start kernels of notebooks with everything imported; tests/reports starts plain ones."""
    monkeypatch.setattr("jupyter_client.provisioning.local_provisioner.launch_kernel", start_kernel)


@pytest.fixture(autouse=True)
def closed_figures():
    """Close the figures of a test, of which pyplot keeps twenty without a warning."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
