"""Train the runs of a plan, seed by seed, and keep their test logits in two small files.

``python -m tools.claims prompts`` makes the prompt of each fold, in closed form;
``python -m tools.claims train`` trains what is not kept yet and adds each run as it ends;
``python -m tools.claims unpack`` turns the two files into run folders, which the plan's last
notebook reads: so anyone can compute the page again without training.
"""

import io
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from filelock import FileLock
from PIL import Image

from fopro_lab.config import DataConfig, RefineConfig, TrainConfig
from fopro_lab.data import batches, prepare
from fopro_lab.evaluation import Run, load_runs, method_label, with_interval, write_predictions
from fopro_lab.fourier import FourierPrompt, fit_prompt, mean_amplitude, spectrum_gain
from fopro_lab.io import atomic_path, write_file, write_json
from fopro_lab.probing.control import MAX_LOG_GAIN, Degradation
from fopro_lab.reports.plan import plan_nodes
from fopro_lab.training import distill, refine, run_name
from fopro_lab.training.methods import find_method, own_hashes
from fopro_lab.training.run_folder import deciding_options, file_hashes
from fopro_lab.training.statistics import reference_spectrum

PLAN = Path("reports/plans/claims.yaml")
HALF = 0.5  # of the way to the natural spectrum's shape
AFTER = ("logit-adjustment", "tau-norm", "crt", "lws", "tta")  # training, of one run
LEDGER = Path("reports/ledger.csv")
TITLES = {
    f"{protocol}-val0.15/seed0/fold1+2+3": f"HAM10000{title}, 3 folds, 128 px, 20 epochs"
    for protocol, title in {
        "ham10000/groups/folds3": "",
        "ham10000/groups/longtail0.005-folds3": ", tail of 1/200",
        "low_pass/groups/folds3": " behind the control's low-pass",
    }.items()
}
KEPT = Path("reports/claims")  # runs.parquet: test logits; manifests.parquet: a row per run
app = typer.Typer(help=__doc__, add_completion=False)


def add_run(run: Run, kept: Path, **about: object) -> None:
    """Add a finished run's test logits (float16), manifest and history to the files of a folder.

    ``about`` goes into the manifest.
    """
    table = run.predictions
    table = table[table["split"] == "test"].drop(columns="split")
    logits = [name for name in table if name.startswith("logit_")]
    table[logits] = table[logits].astype(np.float16)
    table.insert(0, "run", run.name)
    manifest = {**run.manifest, "teacher": _short(run.manifest["teacher"]), **about}
    manifest.pop("files", None)  # hashes of the run's own files, which are not kept as they are
    history = "" if "refined" in manifest else run.history.to_csv(index=False)
    row = pd.DataFrame([{
        "run": run.name, "method": run.method, "seed": run.seed, "fold": run.config["fold"],
        "manifest": json.dumps(manifest), "history": history,
    }])  # fmt: skip
    with FileLock(kept / "kept.lock"):
        for name, new in (("runs.parquet", table), ("manifests.parquet", row)):
            path, parts = kept / name, [new]
            if path.exists():  # without what an interrupted call left of this run
                parts.insert(0, _read(path).query("run != @run.name"))
            whole = pd.concat(parts, ignore_index=True)
            for column in {"run", "image", "group", "source"} & set(whole):
                whole[column] = whole[column].astype(str).astype("category")
            with atomic_path(path) as written:
                whole.to_parquet(written, compression="zstd", index=False)


def _read(path: Path) -> pd.DataFrame:
    """Read a whole file at once: by its name it is opened twice, and may be another by then."""
    return pd.read_parquet(io.BytesIO(path.read_bytes()))


def _short(card: dict | None) -> dict | None:
    """Leave out of a teacher's card what the analysis does not read: its lists of tensors."""
    return card and {k: v for k, v in card.items() if not isinstance(v, list) or len(v) < 20}


def _configs(plan: Path, settings: Sequence[str] = ()) -> list[TrainConfig]:
    nodes = plan_nodes(plan, out="reports", settings=settings, inputs=None)
    return [node.config for node in nodes if isinstance(node.config, TrainConfig)]


@app.command()
def prompts(
    plan: Annotated[Path, typer.Option(help="The plan whose prompts are made.")] = PLAN,
    whole: Annotated[
        bool, typer.Option(help="All the way, with contrast, as far as the control.")
    ] = False,
) -> None:
    """Make the prompts that a plan names, one per split, from its training images.

    Each goes half the way to the shape of natural images' spectrum: contrast as a whole stays.
    """
    made = set()
    for config in _configs(plan):
        if (path := Path(config.prompt_file)) in made or not config.prompt_file:
            continue
        made.add(path)
        packed, split = prepare(config)
        rows = split.train[:: -(-len(split.train) // 1024)]
        images, _ = next(batches(packed, rows, batch_size=len(rows)))
        size, most = config.image_size, MAX_LOG_GAIN if whole else config.max_log_gain
        target, source = reference_spectrum(config)
        shape = (target / mean_amplitude(images)).log()
        if not whole:
            shape = HALF * (shape - shape.mean())
        how: dict[str, Any] = {"size": (size, size), "max_log_gain": most}
        gain = spectrum_gain(torch.ones_like(shape), shape.exp(), **how)
        prompt = FourierPrompt("radial", size=size, max_log_gain=most)
        fit_prompt(prompt, gain)
        path.parent.mkdir(parents=True, exist_ok=True)
        prompt.requires_grad_(False).save(path)
        sys.stderr.write(f"{path}: from {len(rows)} training images to {source}\n")


@app.command()
def degrade(
    dataset: Annotated[Path, typer.Argument(help="Folder of HAM10000.")],
    out: Annotated[Path, typer.Option(help="A new folder.")] = Path("reports/low_pass"),
    size: Annotated[int, typer.Option(help="Side of the square images, pixels.")] = 128,
) -> None:
    """Write HAM10000 behind the control's low-pass as PNG files, clipped to eight bits.

    Its noise, 0.002, is half a step of eight bits.
    """
    packed, _ = prepare(DataConfig(dataset=str(dataset), image_size=size))
    behind = Degradation("low-pass")
    (out / "images").mkdir(parents=True)
    for name, image in zip(packed.dataset.table["image"], packed.images, strict=True):
        degraded = behind(torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)[None])[0]
        pixels = degraded.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save((out / "images" / name).with_suffix(".png"))
    labels = (dataset / "labels.csv").read_text().replace(".jpg,", ".png,")
    write_file(out / "labels.csv", labels)  # last: without it, the folder is no data set


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Where the run folders go.")],
    kept: Annotated[Path, typer.Option(help="Folder of the two files.")] = KEPT,
    plan: Annotated[Path, typer.Option(help="The plan whose runs are trained.")] = PLAN,
    method: Annotated[list[str] | None, typer.Option(help="Only these methods.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Only these seeds.")] = None,
    seconds: Annotated[float, typer.Option(help="Begin no run after so many; 0 is never.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="An option in place of the plan's.")
    ] = None,
    views: Annotated[
        Path | None,
        typer.Option(help="Keep what students see here, 10 GB: half the time on a CPU."),
    ] = None,
) -> None:
    """Train the runs that are not kept yet, all methods and folds of a seed before the next."""
    began = time.monotonic()
    if views:
        from tools.kept_views import keep_views  # late: a GPU's script does without onnxruntime

        keep_views(views)
    configs = _configs(plan, settings or ())
    if unknown := {*(method or ())} - {c.parts.label for c in configs}:
        raise typer.BadParameter(f"{plan} has no method {', '.join(sorted(unknown))}")
    configs = [c for c in configs if not method or c.parts.label in method]
    configs = [c for c in configs if not seed or c.seed in seed]
    configs.sort(key=lambda c: (c.seed, c.fold, c.parts.label))
    for config in configs:
        name = run_name(config)
        if is_kept(config, kept / "manifests.parquet"):
            continue
        how = {"made_with": "tools.kept_views"} if views else {}
        add_run(distill(config, out=out / name), kept, **how)
        sys.stderr.write(f"{name}: kept\n")
        if 0 < seconds < time.monotonic() - began:
            break


@app.command("refine")
def refine_all(
    out: Annotated[Path, typer.Option(help="Where the run folders are, and the refined ones go.")],
    kept: Annotated[Path, typer.Option(help="Folder of the two files.")] = KEPT,
    method: Annotated[str, typer.Option(help="Of which runs.")] = "ce",
    how: Annotated[list[str] | None, typer.Option(help="Only these steps.")] = None,
) -> None:
    """Take every step after training on the finished runs of a method, and keep the results."""
    path = kept / "manifests.parquet"
    there = set(_read(path)["run"]) if path.exists() else set()
    for run in load_runs(out):
        for step in how or AFTER if run.method == method else ():
            if (name := f"{run.name}+{step}") in there:
                continue
            add_run(refine([run], RefineConfig.from_mapping({"how": step}), out=out / name), kept)
            sys.stderr.write(f"{name}: kept\n")


def is_kept(config: TrainConfig, path: Path) -> bool:
    """Tell whether a run of these options and files is kept, on the same images.

    Neither its name decides, which is that of a version, nor the precision that ``auto`` chose.
    """
    wanted, hashes = deciding_options(config), file_hashes(config, own_teacher=False)
    hashes |= own_hashes(find_method(config)[1])
    for text in _read(path)["manifest"] if path.exists() else ():
        manifest = json.loads(text)
        there = deciding_options(TrainConfig.from_mapping(manifest["config"]))
        same = {**there, "precision": ""} == {**wanted, "precision": ""}
        if same and all(manifest.get(name, value) == value for name, value in hashes.items()):
            return True
    return False


@app.command()
def unpack(
    out: Annotated[Path, typer.Option(help="Where the run folders go.")],
    kept: Annotated[Path, typer.Option(help="Folder of the two files.")] = KEPT,
    seed: Annotated[list[int] | None, typer.Option(help="Only these seeds.")] = None,
) -> None:
    """Write the kept runs as run folders without weights."""
    tables = dict(list(_read(kept / "runs.parquet").groupby("run", observed=True)))
    for row in _read(kept / "manifests.parquet").itertuples():
        if seed and row.seed not in seed:
            continue
        folder = out / str(row.run)
        table = tables[row.run].drop(columns="run").assign(split="test")
        write_predictions(folder / "predictions.parquet", table)
        if row.history:
            pd.read_csv(io.StringIO(str(row.history))).to_csv(folder / "history.csv", index=False)
        write_json(folder / "manifest.json", json.loads(str(row.manifest)))


@app.command()
def cite(
    table: Annotated[Path, typer.Argument(help="The page's headline.csv or levels.csv.")],
    kept: Annotated[Path, typer.Option(help="Folder of the two files.")],
    plan: Annotated[Path, typer.Option(help="The plan of the runs.")],
    ledger: Annotated[Path, typer.Option(help="The table of all numbers.")] = LEDGER,
) -> None:
    """Print a table for the README, best first, and bring the ledger's rows of these runs up to it.

    A row of another plan stays unless it has fewer seeds: a method may be in several plans.
    """
    rows = pd.read_csv(ledger, dtype=str, keep_default_na=False)
    key = ["protocol_id", "method", "teacher", "student", "metric", "group"]
    whole = _read(kept / "manifests.parquet")
    found = pd.read_csv(table).sort_values("balanced_accuracy", ascending=False)
    typer.echo("| method | balanced accuracy | head | medium | tail |\n|---|---:|---:|---:|---:|")
    for line in found.to_dict("records"):
        texts = [method_label(line["method"])]
        used = (whole["method"] == line["method"]) & (whole["seed"] < line["seeds"])
        manifests = [json.loads(text) for text in whole.loc[used, "manifest"]]
        newest = max(manifests, key=lambda manifest: manifest["finished"])
        config = TrainConfig.from_mapping(newest["config"])
        for name in ("balanced_accuracy", "head", "medium", "tail"):
            ends = [line[f"{name}{end}"] for end in ("", "_low", "_high")]
            texts.append(with_interval(*ends))
            row = {"student": config.student, "method": line["method"]}
            names = ("ours", "ours_low", "ours_high")
            row |= {name: f"{end:.4f}" for name, end in zip(names, ends, strict=True)}
            row |= {name: str(line[name]) for name in ("seeds", "folds", "n")}
            row["teacher"] = config.teacher if config.parts.is_taught else ""
            row |= {"metric": "recall", "group": name}
            if name == "balanced_accuracy":
                row |= {"metric": name, "group": "all"}
            row |= {"protocol_id": line["protocol"], "commit": newest["commit"]}
            row |= {
                "date": newest["finished"][:10],
                "protocol": TITLES.get(line["protocol"], line["protocol"]),
            }
            own = f" --kept {kept}" if kept != KEPT else ""  # else another plan's would grow
            options = (f" --plan {plan}" if plan != PLAN else "") + own
            row["command"] = f"python -m tools.claims train{options} --out FOLDER"
            if "refined" in newest:
                source = newest["refined"]["method"].rpartition("+")[0]
                refined = f"python -m tools.claims refine{own} --out FOLDER --method {source}"
                row["command"] += f"; {refined}"
            same = (rows[key] == pd.Series(row)[key]).all(axis=1)
            if not same.any():  # before the rows without a number
                place = int((rows["ours"] != "").to_numpy().nonzero()[0].max()) + 1
                new = pd.DataFrame([dict.fromkeys(rows, "") | row])
                rows = pd.concat([rows[:place], new, rows[place:]], ignore_index=True)
                continue
            old = rows[same].iloc[0]
            if old["command"] == row["command"] or int(old["seeds"]) < line["seeds"]:
                rows.loc[same, list(row)] = list(row.values())
        typer.echo(f"| {' | '.join(texts)} |")
    rows.to_csv(ledger, index=False, lineterminator="\n")


if __name__ == "__main__":
    app()
