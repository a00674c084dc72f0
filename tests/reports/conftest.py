"""Tiny notebooks and plans; a kernel's start costs seconds, so most are not executed at all."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from fopro_lab.reports import run_plan
from fopro_lab.reports.execute import Job, Outcome

PLAN = "reports/plans/plan.yaml"


class Instant(ThreadPoolExecutor):
    """Writes the files that executing would, without a kernel; ``broken`` ones raise an error."""

    def __init__(self, *broken: str):
        super().__init__(1)
        self.broken, self.resumed = broken, []

    def submit(self, work, job: Job):
        return super().submit(self.write, job)

    def write(self, job: Job) -> Outcome:
        files = {"run_dir": "manifest.json", "out_dir": "figure.png"}
        places = {n: Path(job.parameters[n], f) for n, f in files.items() if n in job.parameters}
        self.resumed += [job.name for n in ("run_dir",) if n in places and places[n].exists()]
        for path in (*places.values(), Path(job.executed), Path(job.page)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
        if "seed" in job.parameters and "out_dir" in job.parameters:
            Path(job.parameters["out_dir"], f"seed_{job.parameters['seed']}.csv").write_text("x\n1")
        if job.name in self.broken:
            raise IndexError("pop from empty list")
        return Outcome("", 1.0, 1_000)


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

    def run(self, *broken: str, **keys) -> list[str]:
        """Report without kernels; return the names of the runs that were taken up again."""
        with Instant(*broken) as executor:
            run_plan(PLAN, out="out", executor=executor, progress=False, **keys)
        return executor.resumed

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
