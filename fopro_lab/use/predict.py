"""Predictions of new images by a finished run's student, as a table: `predict`."""

import math
import re
from collections.abc import Mapping
from contextlib import closing, redirect_stderr
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import torch

from fopro_lab.config import PredictConfig
from fopro_lab.data import float_images, split_from
from fopro_lab.data.decoding import FileReader
from fopro_lab.data.pack import decode_rows, pack_from
from fopro_lab.data.readers import CONVERT, PARTS, SUFFIXES, name_unreadable, sort_files
from fopro_lab.errors import InputError, WorkError, printable
from fopro_lab.evaluation import calibrate
from fopro_lab.io import atomic_path, plain_cells, progress, say_once, some, write_json
from fopro_lab.models import choose_device
from fopro_lab.models.student import shrink
from fopro_lab.training import TrainedRun
from fopro_lab.training.run_folder import origin

BATCH = 64  # images classified together
NOTICE = "Research software, not a medical device."
_HERE = jinja2.FileSystemLoader(Path(__file__).parent)
TEMPLATES = jinja2.Environment(loader=_HERE, trim_blocks=True)


def predict(
    run: TrainedRun, images: Path | str, config: PredictConfig | None = None, *, out: Path | str
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Classify all images below a folder, or one file; write a CSV, and its origin as JSON.

    Files are decoded and resized as the training images were. One row per file: ``image``,
    ``predicted``, ``probability`` (calibrated), ``class_set`` (``A|B``, bars in names escaped; may
    be empty or lack the predicted class; see `fopro_lab.evaluation.calibration`),
    ``probability_NAME`` of each class, ``part`` of the run's split that holds the image, and
    ``problem``, why a file could not be read. Returns the table, and what is in the JSON.

    Raises:
        InputError: If the run has no student, no image can be read, or an option does not fit.
    """
    config, out, root = config or PredictConfig(), Path(out), Path(images).expanduser()
    if out.suffix != ".csv":
        raise InputError(f"out: expected a file of the ending .csv, got '{out}'")
    beside = out.with_suffix(".json")
    ours = beside.is_file() and NOTICE in beside.read_text("utf-8", "replace")
    if beside.exists() and not ours:
        raise InputError(f"out: {beside} would be overwritten; choose another --out")
    calibration, trained = calibrate(run, coverage=config.coverage), run.train_config
    if "packed" in run.manifest.get("given", ()):
        say_once(f"{run.path}: images were given in training; files are read as its config says")
    prior, classes = calibration.prior(config.prior), np.array(run.class_names, dtype=object)
    names, others = sort_files(root) if root.is_dir() else ([root.name], [])
    if not root.exists():
        raise InputError(f"{root}: expected a folder of images or one image, got no such path")
    if not names:
        strange = [f"{each}; {CONVERT}" for each in name_unreadable(others)[:1]]
        got = " ".join(strange) or (f"other files alone ({some(others)})" if others else "none")
        kinds = ", ".join(sorted(SUFFIXES))
        raise InputError(f"{root}: expected images ({kinds}) in it or below, found {got}")
    student = run.student().to(choose_device(config.device))
    # 16-bit files are read as in training, and refused if there were none
    noted = re.search(r"read as (\d+) bit", " ".join(run.manifest.get("data_notes", ())))
    depth = config.bit_depth or trained.bit_depth or int(noted[1] if noted else 8)
    paths = tuple(str(root / name if root.is_dir() else root) for name in names)
    reader = FileReader(paths, interpolation=trained.interpolation, depth=depth)
    logits, problems = np.full((len(names), len(classes)), np.nan), [""] * len(names)
    decoded, (own, untold) = decode_rows(reader, len(names), trained.image_size, 0), own_images(run)
    parts = [""] * len(names)
    with atomic_path(out) as temporary, closing(decoded):  # first: it may not be writable
        found = enumerate(progress(decoded, total=len(names), label="predicting"))
        while chunk := dict[int, Any](islice(found, BATCH)):
            read = {place: each for place, each in chunk.items() if not isinstance(each, str)}
            for place in chunk.keys() - read:
                problems[place] = str(chunk[place]).removeprefix(f"{printable(paths[place])}: ")
            for place, pixels in read.items():
                parts[place] = own.get(hash(pixels.tobytes()), "")
            if read:
                batch = torch.from_numpy(np.stack(list(read.values()))).to(student.mean.device)
                with torch.inference_mode():
                    seen = shrink(float_images(batch), trained.student_size)
                    logits[list(read)] = student.classify(seen).double().cpu().numpy()
        rows = np.flatnonzero([not problem for problem in problems])
        if not len(rows):
            raise InputError(f"{root}: none of {len(names)} images can be read: {problems[0]}")
        if not np.isfinite(logits[rows]).all():
            raise WorkError(f"{run.path}: the student's answers are not finite numbers")
        table = pd.DataFrame({"image": [printable(name) for name in names]})  # perhaps no UTF-8
        shares = calibration.probabilities(logits[rows], prior)
        order, sets = np.argsort(-shares, kind="stable"), calibration.class_sets(logits[rows])
        held = [classes[own[inside[own]]] for own, inside in zip(order, sets, strict=True)]
        held = [[re.sub(r"([|\\])", r"\\\1", name) for name in own] for own in held]
        table.loc[rows, "predicted"] = classes[order[:, 0]]
        table.loc[rows, "probability"] = shares.max(axis=1)
        table.loc[rows, "class_set"] = ["|".join(own) for own in held]
        table.loc[rows, [f"probability_{name}" for name in classes]] = shares
        table["part"], table["problem"] = parts, problems
        plain_cells(table).to_csv(temporary, index=False, float_format="%.6f")
    facts = {"images": len(names), "not read": len(names) - len(rows), "not images": some(others)}
    facts |= {"of the run's own": untold or {part: parts.count(part) for part in PARTS}}
    counts = table["predicted"].value_counts().reindex(classes, fill_value=0)
    facts |= {"predicted": counts.sort_values(ascending=False, kind="stable").to_dict()}
    known = dict(zip(classes, prior.round(6).tolist(), strict=True))
    facts |= {"class shares": "unknown" if calibration.implicit == "unknown" else known}
    fitted = calibration.temperature != 1
    facts |= {"temperature": round(calibration.temperature, 4) if fitted else "1: none is the best"}
    sizes = sets.sum(axis=1)
    facts |= {"coverage of sets": config.coverage, "mean classes in a set": round(sizes.mean(), 2)}
    facts |= {"sets of every class": int((sizes == len(classes)).sum()), "classes": len(classes)}
    facts |= {"in every set, too few validation images": calibration.too_few}
    facts |= {"counted in validation": calibration.unit, "run": str(run.path)}
    facts |= {"method": run.method, "protocol": run.protocol, "notice": NOTICE}
    write_json(beside, facts | origin(student.mean.device))
    return table, facts


def own_images(run: TrainedRun) -> tuple[dict[int, str], str]:
    """Return the part of a run's split that each image is in, by hash of its pixels; or why not."""
    try:
        if "packed" in run.manifest.get("given", ()):
            raise InputError("they were given as an object")
        with redirect_stderr(StringIO()):  # what is to be said of the files, training has said
            packed = pack_from(run.train_config, make=False)
            split = split_from(packed.dataset, run.train_config)
        run.check_split(split)
    except (InputError, WorkError) as error:
        return {}, str(error)
    parts = split.parts(len(packed))
    rows = np.argsort(parts == "train", kind="stable")  # last, so that it counts of two copies
    return {hash(packed.images[row].tobytes()): str(parts[row]) for row in rows}, ""


def describe(facts: Mapping[str, Any]) -> str:
    """Say in sentences what `predict` found, and the way out where sets say too little."""
    few, coverage = facts["in every set, too few validation images"], facts["coverage of sets"]
    fewest, need = min(few.values(), default=0), math.ceil(coverage / (1 - coverage) - 1e-9)
    lower = math.floor(100 * fewest / (fewest + 1)) / 100  # where every class has images enough
    listed = lambda own: some([f"{name} {n:.3g}" for name, n in own.items()], most=12)  # noqa: E731
    about = {"facts": facts, "few": few, "need": need, "lower": lower, "listed": listed}
    return TEMPLATES.get_template("predict.txt.j2").render(about)
