"""Runs shown by TensorBoard or MLflow, with their curves, options and test scores: `track`."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fopro_lab.errors import InputError, WorkError
from fopro_lab.evaluation import Run
from fopro_lab.use.export import need


def track(
    runs: Sequence[Run], *, to: Literal["tensorboard", "mlflow"] = "tensorboard", out: str = ""
) -> list[str]:
    """Write runs for a tracking program, in place of what was written of them; say where each is.

    ``out`` is TensorBoard's folder, by default ``tensorboard``, or MLflow's URI, by default its
    own. In TensorBoard, a run is known by its folder's name. Unfinished runs have no test scores.
    """
    need(to, extra="tracking")
    names = [run.name for run in runs]
    if to == "tensorboard" and (twice := [name for name in names if names.count(name) > 1]):
        way_out = "rename one, or write each with its own --out"
        raise InputError(f"runs: expected folders of different names, got '{twice[0]}'; {way_out}")
    return [(to_tensorboard if to == "tensorboard" else to_mlflow)(run, out) for run in runs]


def curves(run: Run) -> list[tuple[str, float, int]]:
    """List name, value and epoch of what a run measured, finite numbers alone."""
    rows = run.history.to_dict("records") if (run.path / "history.csv").is_file() else []
    found = [(str(n), float(v), int(row["epoch"])) for row in rows for n, v in row.items()]
    for row in run.table().itertuples() if run.complete else ():
        kind = {"class": "/class/", "group": "/"}.get(row.scope, "")  # a class may be called tail
        name = re.sub(r"[^\w. -]", lambda odd: f"_{ord(odd[0]):x}_", row.name) if kind else ""
        name, epoch = f"test/{row.metric}{kind}{name}", int(run.manifest["best_epoch"])
        found.append((name, float(row.value), epoch))
    return [each for each in found if math.isfinite(each[1])]


def to_tensorboard(run: Run, out: str) -> str:
    """Write a run's event file, then remove older ones."""
    from torch.utils.tensorboard import SummaryWriter

    folder = Path(out or "tensorboard") / run.name
    older = list(folder.glob("events.out.tfevents.*"))
    with SummaryWriter(str(folder)) as writer:
        writer.add_text("manifest", f"```json\n{json.dumps(run.manifest, indent=1)}\n```")
        for point in curves(run):
            writer.add_scalar(*point)
    for path in older:
        path.unlink()
    return str(folder)


def to_mlflow(run: Run, out: str) -> str:
    """Write a run into the experiment ``fopro_lab``, then remove older entries of it."""
    import mlflow

    name = f"{run.name} {run.manifest.get('started', '')}"
    try:
        mlflow.set_tracking_uri(out or None)
        experiment, client = mlflow.set_experiment("fopro_lab"), mlflow.MlflowClient()
        older = client.search_runs([experiment.experiment_id], f"tags.fopro_run = '{name}'")
        with mlflow.start_run(run_name=run.name, tags={"fopro_run": name}) as made:
            mlflow.log_params({n: str(v)[:500] for n, v in run.config.items()})
            for point in curves(run):
                mlflow.log_metric(*point)
            mlflow.log_dict(run.manifest, "manifest.json")
        for each in older:
            client.delete_run(each.info.run_id)
    except mlflow.exceptions.MlflowException as error:
        raise WorkError(f"mlflow: {str(error).splitlines()[0]}") from None
    return f"{mlflow.get_tracking_uri()} run {made.info.run_id}"
