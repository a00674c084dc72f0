"""A plan as a Snakefile, run by Snakemake itself."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from fopro_lab.reports.snakefile import write_snakefile
from tests.reports.conftest import PLAN

SNAKEMAKE = Path(sys.executable).with_name("snakemake")


@pytest.mark.slow
@pytest.mark.skipif(not SNAKEMAKE.exists(), reason="Snakemake needs Python 3.11")
def test_snakemake_executes_what_a_report_would(checkout, monkeypatch):
    monkeypatch.setenv("PATH", f"{SNAKEMAKE.parent}:{os.environ['PATH']}")
    made = "from pathlib import Path\nPath(out_dir, 'made.txt').write_text(f'{mark} {word}')"
    checkout.notebook("a", 'mark: int = 0\nword: str = ""\nout_dir: str = "out"', made)
    checkout.notebook("b", 'table: str = ""', "print(open(table).read())")
    checkout.plan(
        {
            "first": {"notebook": "a", "matrix": {"mark": [1, 2]}, "limit": "5 min"},
            "last": {
                "notebook": "b",
                "after": ["first"],
                "parameters": {"table": "an out/first-2/made.txt"},
            },
        },
        defaults={"word": "a 'quoted' {word}"},
    )
    how = {"file": "Snakefile", "out": "an out"}
    write_snakefile(PLAN, **how, settings=["mark=[2,3]"])
    out = checkout.root / "an out"
    words = [SNAKEMAKE, "-s", "Snakefile", "--cores", "1", "--quiet"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (out / "first-3/made.txt").read_text() == "3 a 'quoted' {word}"
    last = nbformat.read(out / "notebooks/last.ipynb", as_version=4)
    assert last.cells[-1].outputs[0].text == "2 a 'quoted' {word}\n"
    for word, expected in (("a 'quoted' {word}", "Nothing to be done"), ("other", "first-2")):
        write_snakefile(PLAN, **how, settings=["mark=[2,3]", f"word={word}"])
        dry = [*words[:-1], "--dry-run"]
        again = subprocess.run(dry, capture_output=True, text=True, timeout=60)
        assert expected in again.stdout + again.stderr
