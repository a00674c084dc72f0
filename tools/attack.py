"""Attack the package: kills, faults, fuzzed input and simulation; `python -m tools.attack`.

Prints a table: attack, tries, failures, seconds. A try fails where a result would be wrong without
a word, where work is lost, or where an error is not one clear line. Every try has its own seed,
which is named where it fails: ``--only NAME --seed N`` repeats it. Exit code 1 if any failed.
"""

import argparse
import contextlib
import hashlib
import io
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from fopro_lab import cli
from fopro_lab.config import TrainConfig
from fopro_lab.data import batches, make_split, open_dataset, pack
from fopro_lab.data.augment import read_pixels
from fopro_lab.errors import InputError, WorkError
from fopro_lab.fourier import FourierPrompt
from fopro_lab.models.weights import read_weights
from fopro_lab.options import read_yaml
from fopro_lab.reports.pages import cleaned
from fopro_lab.training import TrainedRun, distill
from fopro_lab.training.run_folder import CHECKPOINT

OPTIONS: dict[str, Any] = {"method": "fopro", "images": 100, "image_size": 16, "epochs": 3}
OPTIONS |= {"batch_size": 16, "prompt_steps": 2, "prompt_every": 1, "prompt_rows": 4}
OPTIONS |= {"device": "cpu", "threads": 1}
ODD = ["010", "1:30", "0x10", "true", "1.0", ".nan", ".inf", "-1", "1e999", "null", "[", "{", "''"]
ODD += ["'\x1b[31m'", "é" * 300, "x" * 9000, "../" * 900, "*a", "&a [*a]", "!!python/name:os", "~"]
ODD += ["[1, [2, [3]]]", "{a: 1, a: 2}", str(10**40), "=cmd()", "\\", "\u202e", "/dev/zero", "/"]
Attack = Callable[[random.Random, Path], bool]


def command(*words: str) -> tuple[int, str]:
    """Run ``fopro`` in this process; return its exit code and what it said on stderr."""
    told, code = io.StringIO(), 0
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        sys.argv = ["fopro", *words]
        try:
            cli.main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
    return code, told.getvalue()


def in_a_line(code: int, told: str) -> bool:
    """Tell whether a command ended well, or with one short line about the user's world."""
    last = told.splitlines()[-1:] if code else []
    return code == 0 or (code in (1, 2) and len(last[0]) < 2500 and "unexpected" not in told)


def flipped(content: bytes, chance: random.Random, *, start: int = 0) -> bytes:
    """Change one to eight bits."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(start, len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def refused(call: Callable[..., Any], /, *given: Any, **options: Any) -> bool:
    """Tell whether a call is refused, or fails, with one line."""
    try:
        call(*given, **options)
    except (InputError, WorkError) as error:
        return "\n" not in str(error)
    return False


def run_words(folder: Path, *, ranks: int = 1) -> list[str]:
    """Return the command of one small training."""
    options = [word for name, value in OPTIONS.items() for word in ("--set", f"{name}={value}")]
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    start = [sys.executable, *(several if ranks > 1 else [])]
    return [*start, "-m", "fopro_lab", "train", *options, "--out", str(folder)]


def changed(path: Path) -> int:
    """Return when a file was written; 0 of none."""
    return path.stat().st_mtime_ns if path.exists() else 0


def state_hash(folder: Path) -> str:
    """Hash what decides a run's result."""
    names = ("student.safetensors", "prompt.safetensors", "predictions.parquet")
    return hashlib.sha256(b"".join((folder / n).read_bytes() for n in names)).hexdigest()


def stopped_runs(number: int, *, ranks: int = 1) -> Attack:
    """Stop a training by a signal up to three times, at random moments of its epochs: same bits.

    Of several ranks, one is stopped, beside a process that keeps a core busy.
    """

    def attack(chance: random.Random, folder: Path) -> bool:
        whole, run, stops = finished(ranks), folder / "run", 0
        quiet: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
        longest = TrainedRun.read(whole).history["seconds"].sum()
        busy = psutil.Popen([sys.executable, "-c", f"while {ranks} > 1: pass"])
        for _ in range(9):
            begun = changed(run / "manifest.json")
            with psutil.Popen(run_words(run, ranks=ranks), **quiet) as process:
                while process.poll() is None and changed(run / "manifest.json") == begun:
                    time.sleep(0.01)  # until it trains, however busy the machine is
                time.sleep(chance.uniform(0, longest))
                victims = process.children() if ranks > 1 and process.is_running() else [process]
                with contextlib.suppress(psutil.NoSuchProcess):
                    chance.choice(victims or [process]).send_signal(number)
            stops += process.returncode != 0
            if stops == 3 or (stops and process.returncode == 0):
                break
            if process.returncode == 0:
                shutil.rmtree(run)
        busy.kill()
        busy.wait()
        if not stops:
            raise RuntimeError("the training always ended before it was stopped")
        parts = list(folder.rglob("*.part")) if number == signal.SIGTERM else []
        subprocess.run(run_words(run, ranks=ranks), check=True, capture_output=True)
        return state_hash(run) == state_hash(whole) and not list(run.rglob("*.part")) and not parts

    return attack


_DONE: dict[int, Path] = {}


def finished(ranks: int = 1) -> Path:
    """Train one run, once for each number of processes, and return its folder."""
    if ranks not in _DONE:
        _DONE[ranks] = Path(tempfile.mkdtemp(prefix="fopro-attack-")) / "whole"
        words = run_words(_DONE[ranks], ranks=ranks)
        subprocess.run(words, check=True, capture_output=True)
    return _DONE[ranks]


def damaged_run(chance: random.Random, folder: Path) -> bool:
    """Damage or remove a file of a finished run: its command makes it whole again, or says so."""
    run = Path(shutil.copytree(finished(), folder / "run"))
    path = run / chance.choice(sorted(TrainedRun.read(run).manifest["files"]))
    before = state_hash(run)
    if chance.random() < 0.3:
        path.unlink()
    else:
        path.write_bytes(flipped(path.read_bytes(), chance))
    with contextlib.redirect_stderr(io.StringIO()) as told:
        distill(TrainConfig.from_mapping(OPTIONS), out=run, verbose=False)
    return state_hash(run) == before and path.name in told.getvalue()


def foreign_checkpoint(chance: random.Random, folder: Path) -> bool:
    """Put a checkpoint under a run of another seed, rate or split: it is refused."""
    other: dict[str, Any] = chance.choice([{"seed": 1}, {"learning_rate": 0.01}, {"split_seed": 3}])
    config = TrainConfig.from_mapping({**OPTIONS, **other})
    distill(config.model_copy(update={"epochs": 1}), out=folder / "made", verbose=False)
    run = Path(shutil.copytree(folder / "made", folder / "run"))
    manifest = (run / "manifest.json").read_text().replace('"epochs": 1', '"epochs": 3')
    (run / "manifest.json").write_text(manifest.replace('"state": "done"', '"state": "running"'))
    shutil.copy(finished() / CHECKPOINT, run / CHECKPOINT)
    return refused(distill, config, out=run, verbose=False)


def damaged_pack(chance: random.Random, folder: Path) -> bool:
    """Change pixels of a pack at equal length and time: found when they are read."""
    dataset = open_dataset("phantom", images=60)
    path = pack(dataset, 16, cache=folder, progress=False).path
    assert path is not None
    times, content = path.stat(), flipped(path.read_bytes(), chance, start=128)
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return refused(read_pixels, pack(dataset, 16, cache=folder, progress=False), np.arange(60))


def damaged_prompt(chance: random.Random, folder: Path) -> bool:
    """Change bits of a saved prompt: it is refused."""
    path = folder / "prompt.safetensors"
    path.write_bytes(flipped((finished() / path.name).read_bytes(), chance))
    return refused(FourierPrompt.load, path)


def odd_weights(chance: random.Random, folder: Path) -> bool:
    """Read weights that are damaged, cut, of another kind, or hold code: one line, or taken."""
    torch.save({"a": torch.ones(3), "b": {"c": torch.zeros(2, 2)}}, folder / "w")
    content = (folder / "w").read_bytes()
    kinds = [flipped(content, chance), content[: chance.randrange(len(content))], b"PK\x03\x04"]
    kinds += [chance.randbytes(300), b"\x80\x02cos\nmkdir\n(S'%s'\ntR." % bytes(folder / "ran")]
    (folder / "w").write_bytes(chance.choice(kinds))
    with contextlib.suppress(InputError), contextlib.redirect_stderr(io.StringIO()):
        read_weights(folder / "w")
    return not (folder / "ran").exists()


def fuzzed_options(chance: random.Random, folder: Path) -> bool:
    """Give a training odd options: one line each, and nothing is packed for a wrong one."""
    names = [*TrainConfig.model_fields, "nonsense", "a.b", ""]
    words = ["train", "--set", "images=40", "--set", "image_size=16", "--set", "epochs=1"]
    words += ["--set", "method=bsm", "--out", str(folder / "run")]
    for _ in range(chance.randint(1, 2)):
        words += ["--set", f"{chance.choice(names)}={chance.choice(ODD)}"]
    return in_a_line(*command(*words))


def fuzzed_yaml(chance: random.Random, folder: Path) -> bool:
    """Read YAML of random parts: a mapping or one line, within seconds."""
    parts = [
        *ODD,
        *string.punctuation,
        "\n",
        "\n  ",
        "a: ",
        "b: ",
        "- ",
        "? ",
        "<<: ",
        "&a ",
        "*a ",
    ]
    text = "".join(chance.choices(parts, k=chance.randint(1, 60)))
    (folder / "a.yaml").write_text(text, encoding="utf-8")
    began = time.monotonic()
    with contextlib.suppress(InputError):
        read_yaml(folder / "a.yaml")
    return time.monotonic() - began < 5


def fuzzed_data(chance: random.Random, folder: Path) -> bool:
    """Check a data set with a damaged image or table, odd names, or a pipe: one line or a page."""
    from PIL import Image

    images = folder / "images"
    for number in range(12):
        name = images / "ab"[number % 2] / f"{number}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (20 * number, 0, 99)).save(name)
    path = chance.choice(sorted(images.rglob("*.png")))
    match chance.randrange(4):
        case 0:
            path.write_bytes(flipped(path.read_bytes(), chance))
        case 1:
            path.rename(path.with_name("=cmd()\x1b[31m\u202e<b>.png"))
        case 2:
            path.unlink()
            os.mkfifo(path)
        case _:
            path.parent.rename(path.parent.with_name("$x$ & _{<script>"))
    code, told = command("data", "check", "--set", f"dataset={images}", "--set", "image_size=16")
    return in_a_line(code, told) and "\x1b" not in told


def fuzzed_manifest(chance: random.Random, folder: Path) -> bool:
    """Read a run of whose manifest a value is odd or gone: one line or its table."""
    run = Path(shutil.copytree(finished(), folder / "run"))
    other = Path(shutil.copytree(run, folder / "other"))
    manifest = json.loads((run / "manifest.json").read_text())
    baseline = json.dumps({**manifest, "refined": {"method": "bsm"}})
    (other / "manifest.json").write_text(baseline)
    part = chance.choice([manifest, manifest["config"], manifest["student"], manifest["groups"]])
    name = chance.choice(sorted(part))
    part[name] = chance.choice([None, True, -1, 1e308, math.nan, 10**40, [], {}, [1], *ODD])
    if chance.random() < 0.2:
        del part[name]
    (run / "manifest.json").write_text(json.dumps(manifest))
    code, told = command("compare", str(run), str(other))
    return in_a_line(code, told) and "\x1b" not in told


def limited_files(chance: random.Random, folder: Path) -> bool:
    """Train where files may not grow over a limit: one line, no part left, nothing lost."""
    size = chance.randrange(1000, 400_000)
    done = subprocess.run(
        run_words(folder / "run"),
        capture_output=True,
        text=True,
        env=os.environ | {"FOPRO_CACHE": str(folder / "cache")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )
    return in_a_line(done.returncode, done.stderr) and not list(folder.rglob("*.part"))


def hostile_html(chance: random.Random, folder: Path) -> bool:
    """Clean random nestings of what could run or load something: none of it stays."""
    parts = ["<script>", "</script>", "<meta http-equiv=refresh content=0>", "<base href=//x>", "<"]
    parts += [
        "<form action=//x>",
        "<style>*{}</style>",
        "<svg/onload=x()>",
        "<img src=x onerror=x()>",
    ]
    parts += [
        "<a href='java&#115;cript:x()'>",
        "<math><mtext></form>",
        "<!--",
        "-->",
        "<table>",
        ">",
    ]
    parts += [
        "<iframe srcdoc=x>",
        "text",
        "&lt;script&gt;",
        "\x00",
        "<textarea>",
        "<noscript>",
        "'",
    ]
    found = cleaned("".join(chance.choices(parts, k=30)))
    runs = re.search(r"<[a-z][^>]*([\s/]on\w+\s*=|javascript:)", found.lower())
    tags = ("script", "meta", "base", "form", "style", "svg", "iframe")
    return not runs and not any(f"<{tag}" in found.lower() for tag in tags)


def sampled_classes(chance: random.Random, folder: Path) -> bool:
    """Count what a sampler draws: within five standard errors of its theory."""
    dataset = open_dataset("phantom", images=300)
    packed, split = pack(dataset, 16, progress=False), make_split(dataset, seed=0)
    counts = split.class_counts(dataset).astype(float)
    sampler: Any = chance.choice(["instance", "class-balanced", "square-root"])
    power = {"instance": 1.0, "class-balanced": 0.0, "square-root": 0.5}[sampler]
    how: dict[str, Any] = {"batch_size": 50, "shuffle": True, "epochs": 9}
    drawn, seed = np.zeros(len(counts)), chance.randrange(2**31)
    for epoch in range(8):
        for _, labels in batches(
            packed, split.train, sampler=sampler, seed=seed, epoch=epoch, **how
        ):
            drawn += np.bincount(labels.numpy(), minlength=len(counts))
    share = counts**power / (counts**power).sum()
    return bool((abs(drawn - drawn.sum() * share) <= 5 * np.sqrt(drawn.sum() * share) + 1).all())


# Each attack with its share of the tries: those that train are slow.
ATTACKS: dict[str, tuple[Attack, float]] = {
    "killed training": (stopped_runs(signal.SIGKILL), 0.007),
    "terminated training": (stopped_runs(signal.SIGTERM), 0.004),
    "lost rank of torchrun": (stopped_runs(signal.SIGKILL, ranks=2), 0.002),
    "damaged file of a finished run": (damaged_run, 0.03),
    "checkpoint of another run": (foreign_checkpoint, 0.02),
    "changed bytes of a pack": (damaged_pack, 0.2),
    "changed bits of a prompt": (damaged_prompt, 0.5),
    "odd weights": (odd_weights, 1.0),
    "fuzzed options": (fuzzed_options, 0.2),
    "fuzzed YAML": (fuzzed_yaml, 1.0),
    "fuzzed data set": (fuzzed_data, 0.02),
    "fuzzed manifest of a run": (fuzzed_manifest, 0.2),
    "limited file size": (limited_files, 0.01),
    "hostile HTML": (hostile_html, 1.0),
    "frequencies of samplers": (sampled_classes, 0.02),
}


def main() -> int:
    """Run all attacks, or some, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="tries of the quickest attacks")
    parser.add_argument("--only", action="append", choices=ATTACKS, help="repeatable")
    parser.add_argument("--seed", type=int, help="of a single try")
    chosen, failed = parser.parse_args(), 0
    print("| attack | tries | failures | seconds |\n|---|---|---|---|")
    for name in chosen.only or ATTACKS:
        attack, share = ATTACKS[name]
        tries = 1 if chosen.seed is not None else max(1, round(share * chosen.count))
        began, wrong, told = time.monotonic(), [], time.monotonic()
        for done, seed in enumerate(range(tries) if chosen.seed is None else [chosen.seed]):
            if time.monotonic() - told > 20:
                told = time.monotonic()
                print(f"{name}: {done} of {tries} tries, {told - began:.0f} s", file=sys.stderr)
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                try:
                    held, why = attack(random.Random(seed), Path(folder)), ""
                except Exception as error:
                    held, why = False, f"{type(error).__name__}: {error}"[:200]
            if not held:
                wrong.append(seed)
                print(f"{name}, seed {seed}: {why or 'did not hold'}", file=sys.stderr)
        failed += len(wrong)
        print(f"| {name} | {tries} | {len(wrong)} | {time.monotonic() - began:.0f} |", flush=True)
    for run in _DONE.values():
        shutil.rmtree(run.parent)
    _DONE.clear()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
