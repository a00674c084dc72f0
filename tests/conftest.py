"""Fixtures for the tests: the real images, if they are there."""

import sys
from pathlib import Path

import pytest

from fopro_lab import cli


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
