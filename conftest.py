"""Fixtures for tests and doctests alike: an own cache, and one thread."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def isolated_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep packs of the suite out of the user's cache, and the user's fetched data out of it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("FOPRO_CACHE", str(folder))
        patch.setenv("FOPRO_DATA", str(tmp_path_factory.mktemp("data")))
        patch.delenv("FOPRO_MIRROR", raising=False)
        yield folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Let results and times not depend on how many cores are free."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_figures_left() -> Iterator[None]:
    """Close what a test drew: matplotlib warns when too many figures are open."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
