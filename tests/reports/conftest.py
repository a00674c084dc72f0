"""Tiny notebooks and plans; a kernel's start costs seconds, so few of them are executed."""

import json
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PLAN = "reports/plans/plan.yaml"


class Checkout:
    """An empty repository: notebooks/, reports/plans/, and what a report wrote into out/."""

    def __init__(self, root: Path):
        self.root, self.out = root, root / "out"
        (root / "notebooks").mkdir()
        (root / "reports" / "plans").mkdir(parents=True)

    def notebook(self, name: str, parameters: str, *code: str, config: str = "") -> Path:
        cells = [new_markdown_cell(f"# {name}, a test")]
        if parameters:
            cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        cells += [new_code_cell(source) for source in code]
        metadata = {"fopro": {"config": config}} if config else {}
        path = self.root / "notebooks" / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
        return path

    def plan(self, notebooks: dict, **keys) -> Path:
        content = {"title": "A plan", "notebooks": notebooks, **keys}
        (self.root / PLAN).write_text(yaml.safe_dump(content, sort_keys=False))
        return self.root / PLAN

    def ended(self) -> dict[str, dict]:
        report = json.loads((self.out / "report.json").read_text())
        return {node["name"]: node for node in report["nodes"]}

    def states(self) -> dict[str, str]:
        return {name: node["state"] for name, node in self.ended().items()}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository that is the current folder."""
    monkeypatch.chdir(tmp_path)
    return Checkout(tmp_path)
