"""README and docs keep their word: commands and Python are run from their own text."""

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

from benchmarks.page import write_page
from fopro_lab import cli
from fopro_lab.config import TrainConfig
from fopro_lab.data.fetch import find_source
from fopro_lab.data.published_splits import RATIOS
from fopro_lab.evaluation import balanced_accuracy, compare, load_runs, with_interval
from fopro_lab.evaluation.paper_tables import method_label
from fopro_lab.options import parse_settings
from fopro_lab.widgets.bands import ring_prompt, save_preset
from tests.test_notebooks import check_pages
from tools.claims import unpack

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
README = PAGES["README.md"]
FENCED = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
OWN = "docs/own_method.md"  # run by tests/training/test_methods.py
BLOCKS = [block for page, text in PAGES.items() if page != OWN for block in FENCED.findall(text)]
SHELL = [
    line.split("#")[0].strip()
    for kind, block in BLOCKS
    if kind == "sh"
    for line in block.splitlines()
    if line.split("#")[0].strip()
]
COMMANDS = [shlex.split(line) for line in dict.fromkeys(SHELL) if line.startswith("fopro ")]
# What makes a command small; only names that the command knows.
SMALL = {
    "data": ["image_size=24"],
    "probe": [],
    "train": ["image_size=24", "epochs=1", "batch_size=8", "prompt_steps=1"],
    "refine": ["epochs=1"],
    "teachers": [],
    "report": ["image_size=24", "epochs=1", "prompt_steps=1", "method=[bsm,fopro]", "seed=[0]",
               "rings=2", "gains=[0.0]", "probe_images=8", "batch_size=8", "resamples=20",
               "student_run=runs/bsm-0"],
    "compare": [],
    "explore": [],
    "predict": [],
    "export": [],
    "track": [],
}  # fmt: skip


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
        rows.append((name, "abc"[label], f"patient{number}", "xy"[number % 2]))
    table = pd.DataFrame(rows, columns=["image", "diagnosis", "patient", "site"])
    table.to_csv(home / "images/labels.csv", index=False)
    (home / "new_images").mkdir()
    for name in ("000.png", "001.png"):  # their pixels are the run's own, as the output says
        shutil.copy(home / "images" / name, home / "new_images")
    for folder in ("notebooks", "reports/plans"):
        shutil.copytree(ROOT / folder, home / folder)
    return home


def test_readme_is_two_screens_with_a_moving_picture_and_the_commands_first():
    assert SHELL[0].startswith("git clone") and SHELL[1:3] == ["make report", "make lab"]
    assert len(README.split()) < 650
    clip = re.search(r'<img src="([^"]+)"', README)[1]
    assert 10_000 < (ROOT / clip).stat().st_size < 1_500_000
    with Image.open(ROOT / clip) as opened:
        assert opened.n_frames > 20, "it moves"


@pytest.mark.parametrize("line", [line for line in dict.fromkeys(SHELL) if line[:5] == "make "])
def test_make_knows_the_target(line):
    dry = subprocess.run([*line.split(), "-n"], cwd=ROOT, capture_output=True, text=True)
    assert dry.returncode == 0 and ".venv/bin" in dry.stdout, dry.stderr
    demo = "fopro report reports/plans/demo.yaml --out reports/demo" in dry.stdout
    assert demo == (line == "make report")
    if line == "make lab":
        opened = re.search(r"default_url=/lab/tree/(\S+)", dry.stdout)[1]
        assert (ROOT / opened).is_file() and Path(opened).name[:2] in README.partition(line)[2][:60]


@pytest.mark.slow
def test_fopro_commands_run_in_their_order(home, monkeypatch, capsys, forked_kernels):
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    save_weights(home, "mobilenetv2_100")
    served: list[str] = []
    monkeypatch.setattr(
        "fopro_lab.widgets.serving.serve_explorer",
        lambda values, **how: served.append(values.get("student_run", how["run"])),
    )
    exported: list[str] = []  # which takes its time; tests/use does it
    monkeypatch.setattr(
        "fopro_lab.use.export_student",
        lambda run, files: exported.extend(files) or dict.fromkeys(files, ""),
    )
    monkeypatch.setattr(  # of `fopro probe`; the report below executes its notebook as well
        "fopro_lab.reports.execute_notebook", lambda name, values, *, out: (name, f"{out}/i.html")
    )
    options = {"dataset": str(home / "images"), "image_size": 24}
    prompt = ring_prompt(np.full((3, 9), 2.0), size=24)
    save_preset("by-hand", prompt, folder="presets", options=options)
    commands = [words for words in COMMANDS if not needs_more(words)]
    assert {words[1] for words in commands} == set(SMALL)
    for words in commands:
        if words[1:3] == ["report", "preset"]:  # its notebooks run in test_notebooks
            words += ["--plan"]
        else:
            words += [part for option in SMALL[words[1]] for part in ("--set", option)]
        assert run(monkeypatch, words) == 0, (words, capsys.readouterr().err)
    check_pages(home / "reports/mine")
    assert (home / "reports/mine/tail/headline.csv").is_file()
    assert (home / "reports/mine/prompt/prompt.safetensors").is_file()
    assert (home / "reports/mine/teacher/heat_map_error_student.png").is_file()
    assert (home / "runs/fopro-0/predictions.parquet").exists()
    assert set(served) == {"runs", "runs/fopro-0"} and "student.onnx" in exported


def save_weights(home: Path, name: str) -> Path:
    """Save random weights of a network of timm under its name."""
    import timm
    from safetensors.torch import save_file

    path = home / f"{name}.safetensors"
    save_file(timm.create_model(name, num_classes=0).state_dict(), path)
    return path


def needs_more(words: list[str]) -> bool:
    """Tell whether a command needs a publisher's server, HAM10000 or a cluster."""
    return bool({"fetch", "slurm", "dataset=isic2019-lt", "ham10000"} & set(words))


def run(monkeypatch, words: list[str]) -> int:
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    return int(leaving.value.code or 0)


def test_commands_that_need_a_publisher_name_what_there_is():
    away = [words for words in COMMANDS if needs_more(words) and "report" not in words]
    fetched = [words[-1] for words in away if "fetch" in words]
    assert len(away) == 3 and fetched and all(find_source(name).files for name in fetched)
    for words in [words for words in away if "fetch" not in words]:
        config = TrainConfig.from_mapping(parse_settings([w for w in words if "=" in w]))
        assert config.rule == "isic2019-lt" and config.tail_ratio in RATIOS


def test_the_plan_in_the_docs_is_one(home, monkeypatch, capsys):
    [plan] = [block for kind, block in BLOCKS if kind == "yaml"]
    monkeypatch.chdir(home)
    Path("reports/plans/shown.yaml").write_text(plan, encoding="utf-8")
    assert run(monkeypatch, ["fopro", "report", "reports/plans/shown.yaml", "--plan"]) == 0
    shown = capsys.readouterr().out
    assert all(part in shown for part in ("train-fopro-2", "tail", "bands")), shown


def test_python_blocks_run(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    save_weights(home, "vit_small_patch14_dinov2").rename(home / "dinov2_vits14.safetensors")
    pool = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 512)
    )
    names = {"network": pool, "MEAN": [0.5] * 3, "STD": [0.5] * 3}
    for block in (block for kind, block in BLOCKS if kind == "python"):
        code = [line for line in block.splitlines() if line and not line.startswith("from ")]
        assert len(code) <= 7, "a few lines each"
        exec(block, names)
    assert len(names["split"].test) == 90 and names["packed"].size == 112
    assert names["teacher"].feature_dim == 384
    assert names["mine"].encode(torch.rand(2, 3, 8, 8)).shape == (2, 512)
    assert names["run"].state == "done" and names["run"].manifest["teacher"]["name"] == "wrapped"
    assert len(names["theirs"]) == len(names["split"].train)


@pytest.mark.parametrize("page", PAGES)
def test_links_and_images_are_there(page):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", PAGES[page]):
        assert (ROOT / page).parent.joinpath(target).exists(), target


CLAIMS = ROOT / "reports/claims"


@pytest.mark.parametrize("page", ["README.md", "docs/results.md", "reports/claims/README.md"])
def test_the_first_answers_to_the_claims_are_withdrawn(page):
    words = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    assert re.search(r"\*\*[^*]*withdrawn\.?\*\*", words, re.I)
    assert "-12.9" not in words


def test_the_preferences_in_the_docs_are_the_committed_table():
    words = " ".join(PAGES["docs/results.md"].split())
    pairs = pd.read_csv(CLAIMS / "verdict/distances.csv").query("teacher != 'all'")
    assert f"All {(pairs['p_holm'] < 0.05).sum()} of {len(pairs)} pairs" in words
    assert [f"{value:.3f}" for value in pairs["p_holm"]] == ["0.015"] * len(pairs)
    assert "(corrected p = 0.015 each)" in words
    near, *others = sorted(pairs["between"])
    assert f"are {near:.2f} apart, the other pairs {others[0]:.2f} to {others[-1]:.2f}" in words


def test_the_speed_in_the_docs_is_the_committed_run(tmp_path):
    write_page(ROOT / "reports/bench", path=tmp_path / "speed.md")
    assert (tmp_path / "speed.md").read_text() == PAGES["docs/speed.md"]


def test_the_reference_names_what_the_readme_and_the_docs_import():
    reference = set(re.findall(r"^::: \S+\.(\w+)$", PAGES["docs/api.md"], re.MULTILINE))
    for kind, block in BLOCKS:
        for names in re.findall(r"^from fopro_lab\.\w+ import (.*)$", block, re.MULTILINE):
            if kind == "python" and "config" not in block.split(names)[0].splitlines()[-1]:
                assert set(names.split(", ")) <= reference


PAIRS = [("ekd", "bsm"), ("fopro", "ekd"), ("fopro", "random")]


@pytest.mark.parametrize(("method", "baseline"), PAIRS)
def test_the_numbers_of_the_new_claims_are_those_of_the_kept_runs(method, baseline, tmp_path):
    unpack(tmp_path, CLAIMS)
    pair = [run for run in load_runs(tmp_path) if run.method in (method, baseline)]
    ours, theirs = ({r.seed for r in pair if r.method == name} for name in (method, baseline))
    paired = [run for run in pair if run.seed in ours & theirs]
    table = compare(paired, baseline, resamples=1000).query("method == @method")
    words = PAGES["docs/results.md"] + README + (CLAIMS / "README.md").read_text(encoding="utf-8")
    for scope, name, metric in (
        ("overall", "all", "balanced_accuracy"),
        ("group", "tail", "recall"),
    ):
        chosen = (table["scope"] == scope) & (table["name"] == name) & (table["metric"] == metric)
        row = table[chosen].iloc[0]
        shown = with_interval(row["difference"], row["low"], row["high"], signed=True)
        assert shown in words
        assert row["verdict"] in words and f"{100 * row['seed_sd']:.1f}" in words


def test_the_numbers_of_the_baselines_are_those_of_the_kept_runs(tmp_path):
    folder = ROOT / "reports/baselines"
    levels = pd.read_csv(folder / "tail/headline.csv").set_index("method")
    words = (folder / "README.md").read_text(encoding="utf-8")
    unpack(tmp_path, folder, seed=[*range(levels["seeds"].max())])
    found: dict[str, list[float]] = {method: [] for method in levels.index}
    for run in load_runs(tmp_path):
        table = run.predictions
        answers = table.filter(like="logit_").to_numpy().argmax(axis=1)
        found[run.method].append(balanced_accuracy(table["label"].to_numpy(), answers))
    assert {len(values) for values in found.values()} == {3 * levels["seeds"].max()}
    for method, row in levels.iterrows():
        assert row["balanced_accuracy"] == pytest.approx(np.mean(found[method]), abs=1e-9)
        shown = [method_label(method)]
        for name in ("balanced_accuracy", "head", "medium", "tail"):
            shown.append(with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"]))
        assert f"| {' | '.join(shown)} |" in words, shown


def test_what_the_readmes_of_reports_link_to_is_committed():
    git = ["git", "-C", str(ROOT), "ls-files"]
    tracked = {ROOT / name for name in subprocess.check_output(git, text=True).splitlines()}
    for page in (ROOT / "reports").glob("*/README.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            assert target in tracked or any(target in file.parents for file in tracked), link
