from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fetching.loopback import Shop, open_shop


@pytest.fixture
def shop() -> Iterator[Shop]:
    with open_shop() as opened:
        yield opened


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what the user has fetched out of the tests, and proxies too."""
    monkeypatch.setenv("FOPRO_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("FOPRO_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path / "data"
