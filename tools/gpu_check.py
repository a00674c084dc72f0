"""Prove the package on a GPU in one command: `python -m tools.gpu_check [--out DIR]`.

Results are compared with the CPU in float64, then speed is measured, then the tests marked ``gpu``
run. It takes less than eight minutes on an H200: what the time no longer allows is left empty, and
said. ``--tiny --device cpu`` rehearses every part in seconds. The exit code is 1 if a result is
wrong or a part failed; a speed below its goal is shown and is no error. A machine that has PyTorch
and no network needs a few wheels beside this checkout: docs/cluster.md.
"""

import argparse
import copy
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks import gpu
from benchmarks.timing import machine_facts, print_table, write_results
from fopro_lab.config import TrainConfig
from fopro_lab.fourier import apply_gain
from fopro_lab.models import Student, Teacher, build_student, choose_device
from fopro_lab.models.teacher import quick_teacher
from fopro_lab.training import distill, distillation_loss, run_folder

LIMIT = 450.0  # seconds for everything
FOR_TESTS = 150.0  # seconds of them that the tests may need
SIDES = (224, 225, 97)  # even, odd and prime
CLASSES = 8
FLOAT32 = 1e-4
# Of loss, gradient and teacher's features, relative. In float64 against float32 on a CPU they are
# off by 2e-7, 1e-2 and 3e-7: a gradient passes through ReLUs and batch norms, which turn a last
# digit into a whole path. In bf16 by 3e-4, 0.5 and 5e-3. What forgets a term is off by 1.
EKD = {"float32": (1e-5, 0.03, 1e-4), "TF32": (1e-3, 0.3, 5e-3), "bf16": (5e-3, 0.9, 3e-2)}
FFT32 = 2e-6  # of a transform, relative to the largest pixel


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let cuDNN round the factors of float32 products to TF32, or not."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def relative(found: Tensor, true: Tensor) -> float:
    """Return the norm of the difference over that of the truth."""
    true = true.detach().double().cpu()
    return float((found.detach().double().cpu() - true).norm() / true.norm())


def check_ekd(device: torch.device, sizes: gpu.Sizes) -> Iterator[tuple[str, float, float]]:
    """Compare loss and gradient of one EKD step with those of the CPU in float64."""
    noise, count = torch.Generator().manual_seed(0), min(sizes.batch, 8)
    images = torch.rand(count, 3, sizes.size, sizes.size, generator=noise)
    labels = torch.arange(count) % CLASSES
    teacher = gpu.make_teacher(torch.device("cpu"), sizes)
    wide = teacher.feature_dim
    student = build_student(sizes.student, classes=CLASSES, teacher_dim=wide).train()

    def step(taught: Teacher, learner: Student, to: Callable[[Tensor], Tensor]) -> list[Tensor]:
        pixels, own = to(images), labels.to(to(images).device)
        with torch.no_grad():
            features = taught.encode(pixels)
        counts = torch.arange(1.0, CLASSES + 1, device=own.device)
        loss = distillation_loss(learner(pixels), features, labels=own, class_counts=counts)[0]
        learner.zero_grad()
        loss.backward()
        gradients = (p.grad for p in learner.parameters() if p.grad is not None)
        return [loss, torch.cat([g.flatten().double().cpu() for g in gradients]), features]

    true = step(copy.deepcopy(teacher).double(), copy.deepcopy(student).double(), Tensor.double)
    names = ("loss", "gradient", "teacher's features")

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device)

    for kind in ("float32", "TF32"):
        with tf32(kind == "TF32"):
            found = step(teacher.to(device), copy.deepcopy(student).to(device), move)
        for name, ours, exact, bound in zip(names, found, true, EKD[kind], strict=True):
            yield f"EKD {name}, {kind}", relative(ours, exact), bound
    fast = quick_teacher(teacher.to(device), dtype=torch.bfloat16)
    with torch.autocast(device.type, torch.bfloat16):
        found = step(fast, copy.deepcopy(student).to(device), move)
    for name, ours, exact, bound in zip(names, found, true, EKD["bf16"], strict=True):
        yield f"EKD {name}, bf16", relative(ours, exact), bound


def check_gains(device: torch.device, sides: Iterable[int]) -> Iterator[tuple[str, float, float]]:
    """Compare gains under bf16 autocast, and their gradient, with the CPU in float64."""
    for side in sides:
        noise = torch.Generator().manual_seed(side)
        images = torch.rand(2, 3, side, side, generator=noise)
        gain = 0.5 + torch.rand(2, 3, side, side // 2 + 1, generator=noise)
        above = torch.rand(2, 3, side, side, generator=noise)
        results = []
        for where, kind in ((torch.device("cpu"), torch.float64), (device, torch.float32)):
            factor = gain.to(where, kind).requires_grad_()
            with torch.autocast(where.type, torch.bfloat16, enabled=kind == torch.float32):
                made = apply_gain(images.to(where, kind), factor)
                half = apply_gain(images.to(where, torch.bfloat16), factor.detach().to(where))
            made.backward(above.to(where, kind))
            results.append((made, factor.grad, half))
        (true, slope, _), (found, found_slope, half) = results
        assert slope is not None and found_slope is not None
        yield f"gain at {side} px", relative(found, true), FFT32
        yield f"gradient of the gain at {side} px", relative(found_slope, slope), FFT32
        # Only the images are rounded to bf16, before and after: 2^-9 each.
        yield f"gain at {side} px of bf16 images", relative(half, true), 4e-3


def check_batch_norms(device: torch.device, sizes: gpu.Sizes) -> Iterator[tuple[str, float, float]]:
    """Compare batch norms in training and the teacher's folded ones with the CPU in float64."""
    noise = torch.Generator().manual_seed(0)
    images = 3 + torch.randn(min(sizes.batch, 32), 16, 29, 29, generator=noise)
    norms = [nn.BatchNorm2d(16).to(where, kind) for where, kind in
             (("cpu", torch.float64), (device, torch.float32))]  # fmt: skip
    true = norms[0](images.double())
    ours = images.to(device, memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16):
        found = norms[1](ours)
    yield "batch norm under bf16 autocast", relative(found, true), FLOAT32
    for name in ("running_mean", "running_var"):
        own, exact = (getattr(norm, name) for norm in norms)
        yield f"batch norm, {name}", relative(own, exact), FLOAT32 / 10
    teacher = gpu.make_teacher(torch.device("cpu"), sizes)
    pixels = torch.rand(2, 3, sizes.size, sizes.size, generator=noise)
    with torch.inference_mode(), tf32(False):
        exact = copy.deepcopy(teacher).double().encode(pixels.double())
        folded = quick_teacher(teacher.to(device)).encode(pixels.to(device))
    yield "teacher with folded batch norms", relative(folded, exact), FLOAT32


class Killed(BaseException):
    """What stops the run whose resume is checked."""


def check_resume(device: torch.device) -> Iterator[tuple[str, float, float]]:
    """Stop a deterministic run after its first epoch, resume it, and compare with a whole one."""
    options: dict[str, Any] = {"images": 150, "image_size": 32, "epochs": 2, "batch_size": 16}
    options |= {"prompt_steps": 2, "prompt_rows": 4, "deterministic": True, "device": device.type}
    config, save = TrainConfig(**options), run_folder.save_checkpoint

    def stop(folder: Path, state: dict[str, Any]) -> None:
        save(folder, state)
        raise Killed

    with tempfile.TemporaryDirectory(prefix="fopro-check-") as place:
        whole = distill(config, out=Path(place) / "whole", verbose=False)
        try:
            with patch.object(run_folder, "save_checkpoint", stop):
                distill(config, out=Path(place) / "killed", verbose=False)
        except Killed:
            resumed = distill(config, out=Path(place) / "killed", verbose=False)
        states = [load_file(run.path / "student.safetensors") for run in (whole, resumed)]
        differs = sum(not torch.equal(states[1][name], value) for name, value in states[0].items())
        yield "resumed run, tensors that differ", float(differs), 0.0
        logits = [run.predictions.filter(like="logit_").to_numpy() for run in (whole, resumed)]
        yield "resumed run, largest change of a logit", float(abs(logits[0] - logits[1]).max()), 0.0


def marked_files() -> list[str]:
    """List the files of tests that need a GPU: others may import what a bare machine lacks."""
    files = sorted((Path(__file__).resolve().parents[1] / "tests").rglob("test_*.py"))
    return [str(file) for file in files if "mark.gpu" in file.read_text(encoding="utf-8")]


def run_tests(paths: list[str], *, seconds: float) -> tuple[str, bool]:
    """Run the tests marked ``gpu``; return their last line, and whether none failed."""
    words = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *paths]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=max(seconds, 10))
    except subprocess.TimeoutExpired:
        return f"not finished within {seconds:.0f} s", False
    failed = re.findall(r"^(?:FAILED|ERROR) .*", done.stdout, flags=re.MULTILINE)
    last = (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()[-1]
    return "; ".join([last, *failed]), done.returncode in (0, 5)  # 5: none is marked there


class Check:
    """The parts of a check one after the other: a failed or late one costs itself alone."""

    def __init__(self, limit: float) -> None:
        self.end = time.monotonic() + limit
        self.problems: list[str] = []

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()

    def rows(self, name: str, make: Callable[[], Iterable[Any]], *, keep: float = 0.0) -> list[Any]:
        """Collect what a part yields; ``keep`` seconds are left for what follows."""
        found: list[Any] = []
        try:
            source = iter(make())
            while self.left > keep:
                try:
                    found.append(next(source))
                except StopIteration:
                    return found
            self.problems.append(f"{name}: not measured to its end, the time was up")
        except Exception as error:  # the rest of the table is worth more than this part
            traceback.print_exc()
            self.problems.append(f"{name}: {type(error).__name__}: {error}".splitlines()[0])
        return found


def check(
    device: torch.device, sizes: gpu.Sizes, *, tests: list[str], limit: float = LIMIT
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Run all parts; return their tables, and what is wrong in one line each.

    Args:
        device: Where.
        sizes: How large.
        tests: Paths given to pytest; none leaves its tests out.
        limit: Seconds for everything.
    """
    parts, start = Check(limit), time.monotonic()
    sides = SIDES if sizes.size == SIDES[0] else (16, 17, 11)
    checks: list[tuple[str, float, float]] = []
    for name, make in {
        "EKD": lambda: check_ekd(device, sizes),
        "gains": lambda: check_gains(device, sides),
        "batch norms": lambda: check_batch_norms(device, sizes),
        "resume": lambda: check_resume(device),
    }.items():
        checks += parts.rows(name, make)
    correct = pd.DataFrame(checks, columns=["check", "error", "bound"])
    correct["holds"] = (correct["error"] <= correct["bound"]).map({True: "yes", False: "no"})
    wrong = correct[correct["holds"] == "no"]
    for row in wrong.itertuples():
        parts.problems.append(f"{row.check}: {row.error:.3g} > {row.bound:.3g}")
    tables = {"correct": correct}
    keep = FOR_TESTS if tests else 0.0
    torch.backends.cudnn.benchmark = True  # as training sets it
    kernels = parts.rows("kernels", lambda: [gpu.top_kernels(device, sizes)], keep=keep)
    tables |= {"kernels": kernels[0]} if kernels else {}
    prompt = parts.rows("prompt", lambda: [gpu.learned_prompt(device, sizes)], keep=keep)
    if ceilings := parts.rows("ceilings", lambda: [gpu.measure_ceilings(device, sizes)], keep=keep):
        found = ceilings[0]
        rows = parts.rows("speed", lambda: gpu.speed_rows(device, sizes, found), keep=keep)
        tables["speed"] = pd.DataFrame(rows + prompt)
        names = {"flops": "bf16 products, TFLOP/s", "bytes": "copy, TB/s"}
        values = [(names[key], value / 1e12) for key, value in found.items()]
        tables["ceilings"] = pd.DataFrame(values, columns=["ceiling", "value"])
    if tests:
        line, passed = run_tests(tests, seconds=parts.left)
        parts.problems += [] if passed else [f"pytest -m gpu: {line}"]
        tables["tests"] = pd.DataFrame([(line,)], columns=["pytest -m gpu"])
    seconds = time.monotonic() - start
    tables["all"] = pd.DataFrame([(seconds, len(parts.problems))], columns=["seconds", "problems"])
    return tables, parts.problems


def main(words: list[str] | None = None) -> int:
    """Check, print the tables, write them; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="small sizes, to rehearse")
    parser.add_argument("--tests", nargs="*", help="paths for pytest -m gpu; all")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for everything")
    parser.add_argument("--out", type=Path, default=Path("reports/gpu_check"), help="of the JSON")
    options = parser.parse_args(words)
    device = choose_device(options.device)
    if device.type == "cpu" and not options.tiny:
        parser.error("--device cpu: rehearses alone; give --tiny, too")
    facts = machine_facts()
    print(f"{facts['gpu'] or facts['processor']}, torch {facts['versions']['torch']}")
    sizes = gpu.TINY if options.tiny else gpu.Sizes()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for the resume; read only once
    tests = marked_files() if options.tests is None else options.tests
    tables, problems = check(device, sizes, tests=tests, limit=options.limit)
    for name, table in tables.items():
        print_table(name, table)
    print("\n".join(f"problem: {line}" for line in problems) or "\neverything holds")
    name = "gpu-rehearsal" if options.tiny else "gpu"
    print(write_results(name, tables, out=options.out, facts={**facts, "problems": problems}))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
