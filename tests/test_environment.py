"""The three lists of packages agree: pyproject.toml, environment.yml, requirements.lock."""

import re
from pathlib import Path

import yaml

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]


def wanted() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]


def test_environment_yml_lists_what_pyproject_lists():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert sorted(pip) == sorted([*wanted(), "-e ."])
    assert "python>=3.10" in environment["dependencies"]


def test_every_dependency_is_locked_with_hashes_and_no_address():
    lock = (ROOT / "requirements.lock").read_text()
    pinned = {name.lower() for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}
    names = {re.match(r"[\w-]+", entry).group().lower() for entry in wanted()}
    assert names <= pinned
    for block in re.split(r"\n(?=\S)", lock.strip()):
        assert "--hash=sha256:" in block, block.splitlines()[0]
    assert "://" not in lock and "index-url" not in lock
