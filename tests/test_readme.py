"""The README keeps its word: its commands and its Python are run, from its own text."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fopro_lab import cli
from fopro_lab.config import TrainConfig, parse_settings
from fopro_lab.data import isic2019_lt_counts
from fopro_lab.data.fetch import find_source
from fopro_lab.reports.plan import declared_parameters
from fopro_lab.widgets.bands import ring_prompt, save_preset

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", README, re.DOTALL)
SHELL = [
    line.split("#")[0].strip()
    for kind, block in BLOCKS
    if kind == "sh"
    for line in block.splitlines()
    if line.split("#")[0].strip()
]
COMMANDS = [shlex.split(line) for line in SHELL if line.startswith("fopro ")]
# What makes a command of the README small; only names that the command knows.
SMALL = {
    "data": ["image_size=24"],
    "probe": ["image_size=24", "rings=2", "gains=[0.0]", "resamples=100", "probe_images=8"],
    "train": ["image_size=24", "epochs=1", "batch_size=8", "prompt_steps=1"],
    "report": ["image_size=32", "epochs=1", "prompt_steps=1", "method=[bsm]", "seed=[0]",
               "rings=2", "gains=[0.0]", "probe_images=8", "batch_size=8", "resamples=20"],
    "compare": [],
    "explore": [],
}  # fmt: skip
SMALL_PIN = ["epochs=1", "method=[bsm]", "seed=[0]", "batch_size=8", "resamples=20"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A home with 144 images of 3 classes, their CSV, plans and notebooks."""
    home = tmp_path_factory.mktemp("home")
    (home / "images").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(144):
        label, name = number % 3, f"{number:03d}.png"
        pixels = rng.integers(0, 80 + 80 * label, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(home / "images" / name)
        rows.append((name, "abc"[label], f"patient{number}"))
    table = pd.DataFrame(rows, columns=["image", "diagnosis", "patient"])
    table.to_csv(home / "images/labels.csv", index=False)
    for folder in ("notebooks", "reports/plans"):
        shutil.copytree(ROOT / folder, home / folder)
    return home


def test_readme_names_the_two_commands_first():
    assert SHELL[:2] == ["make report", "make test"]


@pytest.mark.parametrize("line", [line for line in SHELL if line.startswith("make ")])
def test_make_knows_the_target(line):
    told = subprocess.run([*line.split(), "-n"], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0 and ".venv/bin" in told.stdout, told.stderr


def test_make_report_is_the_demo_plan():
    told = subprocess.run(["make", "-n", "report"], cwd=ROOT, capture_output=True, text=True)
    assert "fopro report reports/plans/demo.yaml --out reports/demo" in told.stdout


@pytest.mark.slow
def test_fopro_commands_run_in_their_order(home, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    served: list[dict] = []
    monkeypatch.setattr(
        "fopro_lab.widgets.serving.serve_explorer", lambda v, **told: served.append(v)
    )
    knobs = {"dataset": str(home / "images"), "image_size": 24}
    prompt = ring_prompt(np.full((3, 9), 2.0), size=24)
    save_preset("by-hand", prompt, folder="pins", options=knobs)
    commands = [words for words in COMMANDS if not needs_publishers(words)]
    assert {words[1] for words in commands} == set(SMALL)
    for words in commands:
        small = SMALL_PIN if "reports/plans/pinned.yaml" in words else SMALL[words[1]]
        words += [part for knob in small for part in ("--set", knob)]
        assert run(monkeypatch, words) == 0, (words, capsys.readouterr().err)
    assert (home / "reports/mine/index.html").exists()
    assert (home / "runs/fopro-0/predictions.parquet").exists()
    assert set(served[0]) <= set(declared_parameters(ROOT / "notebooks/06_band_explorer.ipynb"))


def test_the_plan_it_shows_is_one(home, monkeypatch, capsys):
    [plan] = re.findall(r"```yaml\n(title.*?)```", README, re.DOTALL)
    monkeypatch.chdir(home)
    Path("reports/plans/shown.yaml").write_text(plan, encoding="utf-8")
    assert run(monkeypatch, ["fopro", "report", "reports/plans/shown.yaml", "--plan"]) == 0
    told = capsys.readouterr().out
    assert all(part in told for part in ("train-fopro-2", "tail", "bands")), told


def needs_publishers(words: list[str]) -> bool:
    return "fetch" in words or "dataset=isic2019-lt" in words


def test_commands_that_need_a_publisher_name_what_there_is():
    away = [words for words in COMMANDS if needs_publishers(words)]
    assert len(away) == 3
    for words in away:
        if "fetch" in words:
            assert find_source(words[-1]).files
        else:
            knobs = [part for part in words if "=" in part]
            config = TrainConfig.from_mapping(parse_settings(knobs))
            assert config.rule == "isic2019-lt" and isic2019_lt_counts(config.tail_ratio)


def run(monkeypatch, words: list[str]) -> int:
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    return int(leaving.value.code or 0)


def test_python_blocks_run(home, monkeypatch):
    import timm
    from safetensors.torch import save_file

    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    vit = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    save_file(vit.state_dict(), home / "dinov2_vits14.safetensors")
    pool = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 512)
    )
    names = {"network": pool, "MEAN": [0.5] * 3, "STD": [0.5] * 3, "images": torch.rand(2, 3, 8, 8)}
    blocks = [block for kind, block in BLOCKS if kind == "python"]
    assert len(blocks) == 3
    for block in blocks:
        code = [line for line in block.splitlines() if line and not line.startswith("from ")]
        assert len(code) <= 5, "five lines each"
        exec(block, names)
    assert len(names["split"].test) == 90 and names["packed"].size == 112
    assert names["teacher"].feature_dim == 384
    assert isinstance(names["theirs"], torch.utils.data.Dataset)
    assert len(names["theirs"]) == len(names["split"].train)


def test_links_and_images_of_the_readme_are_there():
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def committed_speed(kind: str) -> tuple[str, dict]:
    """Words of the section on speed, and the tables of the committed run that it names."""
    words = " ".join(README.partition("## Speed")[2].partition("\n## ")[0].split())
    [name] = re.findall(rf"reports/bench/({kind}-\S+)\.json", words)
    return words, json.loads((ROOT / f"reports/bench/{name}.json").read_text())["tables"]


def test_the_speed_it_tells_is_the_committed_run():
    words, tables = committed_speed("data")
    ratios = {row["variant"]: row["ratio"] for key in ("batches", "packing") for row in tables[key]}
    told = (
        f"fused {ratios['packed, fused augmentation']:.3g}",
        f"{ratios['packed, exact augmentation']:.3g} times",
        f"loading alone {ratios['packed, load alone, 8 bit']:.3g} times",
        f"({ratios['pack, exact, one process']:.3g})",
        f"{ratios['pack, exact, 2 processes']:.3g} times as much",
        f"takes {tables['opening'][1]['milliseconds']:.2g} ms",
        f"takes {tables['opening'][0]['milliseconds']:.3g} ms",
    )
    for part in told:
        assert part in words, part


def test_the_lab_speed_it_tells_is_the_committed_run():
    words, tables = committed_speed("lab")
    small, large = (row["median_ms"] for row in tables["ticks"])
    cells, wall, overhead, finished = (row["value"] for row in tables["reports"])
    told = (
        f"takes {small:.2g} ms at 64 px and {large:.2g} ms at 224 px",
        f"take {wall:.3g} times the sum of their wall times",
        f"but {cells:.3g} times that of their cells alone",
        f"that is {overhead:.2g} s a notebook",
        f"asked again takes {finished:.2g} s",
    )
    for part in told:
        assert part in words, part


def test_the_fourier_speed_it_tells_is_the_committed_run():
    words, tables = committed_speed("fourier")
    ratio = {
        (key, row["variant"]): row["ratio"]
        for key, rows in tables.items()
        for row in rows
        if "ratio" in row
    }
    ours, short = "apply_gain", "irfft2(rfft2 x gain), plain autograd"
    told = (
        f"{ratio['gain', ours]:.3g} times as fast",
        f"{ratio['gain_backward', ours]:.3g} times with its gradients",
        f"{ratio['gain_backward', ours] / ratio['gain_backward', short]:.1f} times with gradients",
        f"at {ratio['step_resnet50', 'EKD step, prompt of form generator']:.2f} of the speed",
        f"rings at {ratio['rings', 'ring_drifts over 8 rings']:.3g} of nine",
        f"by {tables['preference'][-1]['largest']:.3f} at most",
    )
    for part in told:
        assert part in words, part
    assert ratio["gain", ours] < ratio["gain", short]  # "gains nothing forward"


def test_the_step_speed_it_tells_is_the_committed_run():
    words, tables = committed_speed("step")
    steps = {row["variant"]: row for row in tables["step"]}
    ratio = {name: row["ratio"] for name, row in steps.items()}
    memory = {row["variant"]: row["share"] for row in tables["memory"]}
    prompted = {row["variant"]: row["ratio"] for row in tables["prompted"]}
    shares = [row["share_of_matmul"] for row in tables["ceilings"]]
    told = (
        f"{ratio['engine']:.3g} times as fast (1.4 was aimed at)",
        f"in bfloat16 {ratio['engine, bfloat16']:.3g} times (5 was aimed at",
        f"at {prompted['FoPro-KD step']:.3g} of EKD's",
        f"{memory['engine']:.3g} of the script's (1 was aimed at",
        f"in bfloat16 at {memory['engine, bfloat16']:.2g}",
        f"{shares[0]:.3g} (float32) and {shares[1]:.3g} (bfloat16)",
    )
    for part in told:
        assert part in words, part
    compiled = ratio["engine, teacher compiled"], ratio["engine, bfloat16, teacher compiled"]
    plain = ratio["engine"], ratio["engine, bfloat16"]
    assert max(abs(a - b) for a, b in zip(compiled, plain, strict=True)) < 0.1  # "changes little"
    assert steps["engine"]["reached"] == "no" and memory["engine"] > 1  # "was aimed at"


CLAIMS = ROOT / "reports/claims"
TOLD_OF_CLAIMS = {
    "README.md": README.partition("## Three claims, tested")[2].partition("\n## ")[0],
    "reports/claims/README.md": (CLAIMS / "README.md").read_text(encoding="utf-8"),
    "CHANGELOG.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
}


@pytest.mark.parametrize("name", TOLD_OF_CLAIMS)
def test_the_first_answers_to_the_claims_are_withdrawn(name):
    words = " ".join(TOLD_OF_CLAIMS[name].split())
    for part in ("5 to 7 points", "17 to 23", "anew"):
        assert part in words, part
    if name == "CHANGELOG.md":
        assert "- Withdrawn: the first answers" in words
    else:
        assert re.match(r"(# The three claims [^*]*)?\*\*[^*]*[Ww]ithdrawn\.\*\* ", words), (
            "at the top"
        )
    table = pd.read_csv(CLAIMS / "verdict/claims.csv")
    tail = table[(table["scope"] == "group") & (table["name"] == "tail")]
    accuracy = table[table["metric"] == "balanced_accuracy"]
    assert len(tail) == len(accuracy) == 3 * 4 + 1
    for row in pd.concat([tail, accuracy]).itertuples():
        assert f"[{100 * row.low:+.1f}, {100 * row.high:+.1f}]" not in words
    for difference in tail["difference"]:  # "tail -5.1" or "in the tail by -5.1"
        assert not re.search(rf"tail\D{{0,9}}{re.escape(f'{100 * difference:+.1f}')}", words)
    assert "-12.9" not in words


def test_the_preferences_it_tells_are_the_committed_ones():
    words = " ".join(TOLD_OF_CLAIMS["README.md"].split())
    pairs = pd.read_csv(CLAIMS / "verdict/distances.csv").query("teacher != 'all'")
    assert f"All {(pairs['p_holm'] < 0.05).sum()} of {len(pairs)} pairs" in words
    assert [f"{value:.3f}" for value in pairs["p_holm"]] == ["0.015"] * len(pairs)
    assert "(corrected p = 0.015 each)" in words
    near, *others = sorted(pairs["between"])
    assert f"{near:.2f} apart, the other pairs {others[0]:.2f} to {others[-1]:.2f}" in words
