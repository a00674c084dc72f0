"""The nightly tests stay behind unless they are asked for: `pytest -m nightly`."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked nightly, whatever else ``-m`` says, unless it names that mark."""
    if "nightly" in (config.getoption("-m") or ""):
        return
    nightly = [item for item in items if item.get_closest_marker("nightly")]
    if nightly:
        config.hook.pytest_deselected(items=nightly)
        items[:] = [item for item in items if item not in nightly]
