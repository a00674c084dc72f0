"""Names of a stranger's table are text in every page, figure, table and line they come to."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fopro_lab.errors import CONTROL
from fopro_lab.reports import run_plan
from tests.test_notebooks import check_pages

HOSTILE = [
    *("<script>alert(1)</script>", r"$\alpha$", "$x_{", "=cmd()", "@x", "+1", "\x1b[31mred"),
    *("\u202eturned", "**bold** <b>bold</b>", "{{7*7}}", "%s %d {0}", "long " + "name " * 60),
    *(r"\input{x} & % # ~ ^", "[a](javascript:x()) ![b](//c/d.png) `e`", "<img src=//x onload=x>"),
]
PLAN = """
title: "<script>alert(1)</script> {{7*7}} $x_{"
defaults: {dataset: DATA, image_size: 24, test_fraction: 0.35, val_fraction: 0.2}
notebooks:
  dataset: {notebook: 01_dataset, parameters: {audit_images: 8}}
  teacher:
    notebook: 02_teacher_frequencies
    parameters: {rings: 2, gains: [0.0], probe_images: 8, options: {resamples: 20}}
  prompt: {notebook: 03_fourier_prompt, parameters: {prompt_steps: 1}}
  train:
    notebook: 04_train
    matrix: {method: [bsm, fopro]}
    parameters: {epochs: 1, options: {prompt_steps: 1, batch_size: 16}}
  tail: {notebook: 05_tail_accuracy, after: [train], parameters: {resamples: 20}}
"""
FOREIGN = """
title: Runs of a stranger
notebooks:
  tail:
    notebook: 05_tail_accuracy
    parameters: {resamples: 20, run_dirs: [RUNS], baselines: [bsm]}
"""


class Page(HTMLParser):
    """Collects what a page would run or load, and what it holds as text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.active, self.text = list[str](), ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        loads = [v for _, v in attrs if re.match(r"(https?:)?//|javascript:", v or "")]
        runs = [name for name, _ in attrs if name.startswith("on")]
        self.active += [tag] * (tag in ("script", "iframe") or bool(loads or runs))

    def handle_data(self, data):
        self.text += data


def check_inert(report, *, scripts):
    """Hold pages and tables to text: no element, formula, control code or error of a name."""
    check_pages(report)  # no warning, as of a letter that has no glyph, and no network
    for path in (report / "index.html", *(report / "pages").glob("*.html")):
        text = path.read_text()
        page = Page(text)
        assert not re.search(f"[{CONTROL}]", text.replace("\n", "").replace("\t", "")), path
        assert page.active.count("script") <= scripts.get(path.stem, 0), (path, page.active)
        assert not set(page.active) - {"script"}, (path, page.active)
        assert not re.search(r"<(b|strong)>bold|<code>e", re.sub(r"<img [^>]*>", "", text)), path
        assert "{{7*7}}" in page.text or path.stem not in ("dataset", "teacher"), path
    for path in report.rglob("*.csv"):
        for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8"))):
            for cell in row:
                assert not re.search(f"[{CONTROL}]", cell), (path, cell)
                number = re.fullmatch(r"[+-]?(\d[\d.e+-]*|inf)", cell)
                assert number or cell[:1] not in [*"=@+-"], (path, cell)


@pytest.mark.nightly
def test_hostile_names_are_text_to_the_last_page(tmp_path, monkeypatch, forked_kernels, capfd):
    rng, rows = np.random.default_rng(0), []
    (tmp_path / "data").mkdir()
    for label, name in enumerate(HOSTILE):
        for number in range(12 if label else 36):
            file = f"{name[:40].replace('/', '')}{label}-{number}.png"
            pixels = rng.integers(0, 80 + 10 * label, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / file)
            rows.append((file, name, f"{name[:60]}{number}", HOSTILE[number % 3]))
    columns = ["image", "diagnosis", "patient", "site"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "data/labels.csv", index=False)
    (tmp_path / "plan.yaml").write_text(PLAN.replace("DATA", str(tmp_path / "data")))
    monkeypatch.setenv("FOPRO_HOME", str(tmp_path))
    run_plan(tmp_path / "plan.yaml", out=tmp_path / "out", progress=False)
    check_inert(tmp_path / "out", scripts={"index": 1, "prompt": 1})

    odd = " ".join(HOSTILE)
    for number, path in enumerate((tmp_path / "out/runs").glob("*/manifest.json")):
        manifest = json.loads(path.read_text())
        manifest |= {"protocol": f"=cmd() {odd}", "commit": f"@{odd}", "device": f"+{odd}"}
        manifest |= {"refined": {"method": f"={odd}"}} if number else {}
        path.write_text(json.dumps(manifest))
    (tmp_path / "foreign.yaml").write_text(FOREIGN.replace("RUNS", str(tmp_path / "out/runs")))
    run_plan(tmp_path / "foreign.yaml", out=tmp_path / "foreign", progress=False)
    check_inert(tmp_path / "foreign", scripts={})
    told = "".join(capfd.readouterr())
    assert not re.search(f"[{CONTROL}]", told.replace("\n", "").replace("\r", "")), told
