"""The page docs/speed.md, written from the newest committed run of each benchmark."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

SECTIONS = {
    "data": (
        "From files to batches",
        "Images per second on one core, from JPEGs of 1024 px to batches of 224 px.",
    ),
    "fourier": (
        "Gains and ring responses",
        "Images per second on one core, 32 images of 224 px; the teacher of the ring responses "
        "is the built-in one at 64 px. Names that end in `_cuda` ran on the GPU.",
    ),
    "step": (
        "Steps of distillation",
        "Images per second, teacher ResNet-50, student ResNet-18, 32 images of 224 px, all cores.",
    ),
    "kept": (
        "Kept teacher features",
        "Images per second of training: epochs of the recipe `small` with a MobileNetV2 at 128 px.",
    ),
    "sweep": (
        "A sweep with kept teacher features",
        "Images per second of training: 3 folds, 3 seeds and 4 methods, start to end, 8 epochs "
        "each (9 minutes on two cores). Runs train on about 90 images, in a second or two, "
        "so that what comes before and after their training counts, too.",
    ),
    "gpu": (
        "One GPU",
        "Images per second on one GPU, 224 px, batches of 128, bf16, teacher ResNet-50, student "
        "ResNet-18, written by `make gpucheck`; the goals are for an H100 or H200.",
    ),
    "reports": ("Sliders and reports", "One tick of a slider; a batch of 12 notebooks."),
    "scaling": (
        "As work grows",
        "Images of 64 px, 500 test images per run, no kernels, seconds of the processor; "
        "`exponent` is the power of the size by which they grow. What follows for large studies: "
        "[scaling](scaling.md).",
    ),
}
INTRODUCTION = """# Speed

Ratios to plain alternatives, measured side by side in one run by `make bench`: a ratio of 2 is
twice as fast as the first row, from `low` to `high` in half of the rounds. Ratios carry over to
other machines better than times do. Written by `python -m benchmarks page` from the files linked.
"""


def write_page(folder: Path, *, path: Path) -> None:
    """Write the page from the JSON files that `write_results` left in ``folder``."""
    found: dict[tuple[str, str], tuple[Path, dict[str, Any]]] = {}
    for file in sorted(folder.glob("*.json"), key=lambda file: file.stem[-10:]):  # by date
        run = json.loads(file.read_text(encoding="utf-8"))
        found[run["bench"], run["machine"]["gpu"]] = file, run  # the newest of each machine
    parts = [INTRODUCTION]
    for name, (title, about) in SECTIONS.items():
        parts.append(f"## {title}\n\n{about}\n")
        runs = [_run(*each) for (bench, _), each in sorted(found.items()) if bench == name]
        parts += runs or ["Not measured yet.\n"]
    path.write_text("\n".join(parts), encoding="utf-8")


def _run(file: Path, run: dict[str, Any]) -> str:
    facts = run["machine"]
    place = f"../reports/{file.parent.name}/{file.name}"
    where = f"{facts['processor']}, {facts['cores']} cores, {facts['gpu'] or 'no GPU'}"
    version = facts["versions"]["fopro_lab"]
    parts = [f"[{facts['date']}, fopro_lab {version}, {where}]({place})\n"]
    for key, rows in run["tables"].items():
        table = pd.DataFrame(rows)
        if not any(name.startswith("goal") for name in table):
            continue  # differences and counts: in the file alone
        figure = file.with_name(f"{file.stem}-{key}.png")
        if figure.is_file():
            parts.append(f"![{key}]({place.removesuffix('.json')}-{key}.png)\n")
        parts.append(f"{_markdown(table.drop(columns=['rounds'], errors='ignore'), key)}\n")
    return "\n".join(parts)


def _markdown(table: pd.DataFrame, key: str) -> str:
    """Name the table in its first column, where it has no name; numbers have three digits."""
    first = table.columns[0]
    table = table.rename(columns={first: key if first in ("variant", "what") else first})
    cells = table.map(lambda value: f"{value:.3g}" if isinstance(value, float) else value)
    return str(cells.astype(object).where(table.notna(), "").to_markdown(index=False))
