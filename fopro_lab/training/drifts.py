"""How far the prompts of finished runs move their teachers: a control is fair at equal drift."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch

from fopro_lab.config import TrainConfig
from fopro_lab.data import batches, prepare
from fopro_lab.evaluation import Run
from fopro_lab.models import load_from
from fopro_lab.training.actors import generator_for, places_of, prompted
from fopro_lab.training.folders import TrainedRun
from fopro_lab.training.judging import drift
from fopro_lab.training.schedule import PROMPTING


def prompt_drifts(runs: Iterable[Run], *, pictures: int = 64) -> pd.DataFrame:
    """Measure the drift of each run's prompt, as the teacher met it, on validation pictures.

    The control ``random`` moves the learned gains to other frequencies, where pictures may have
    much more energy or the teacher listens better: its drift is another one.

    Args:
        runs: Finished runs; those without a prompt are passed over.
        pictures: Validation pictures that each teacher is shown, the first ones.

    Returns:
        A row a run: ``run`` (folder), ``teacher``, ``method``, ``seed``, ``protocol``, ``drift``
        (mean ``1 - cos`` of the features with and without the prompt), ``n`` (pictures).

    Raises:
        InputError: If the pictures or the weights of a run are not where its config says.

    Example:
        >>> prompt_drifts([]).empty
        True
    """
    rows = []
    for run in runs:
        if run.method not in PROMPTING:
            continue
        config = TrainConfig.from_mapping(run.config)
        packed, split = prepare(config, progress=False)
        teacher = load_from(config)
        shown = split.val[:pictures]
        images, _ = next(batches(packed, shown, batch_size=len(shown)))
        noise = generator_for(config.seed, purpose="drift of a finished prompt")
        with torch.inference_mode():
            changed = prompted(
                images,
                TrainedRun.read(Path(run.path)).prompt(),
                generator=noise,
                places=places_of(config, noise) if config.method == "random" else None,
                per_picture=config.random_gains == "per-picture",
            )
            moved = drift(teacher.encode(images), teacher.encode(changed))
        rows.append(
            (run.name, config.teacher, run.method, run.seed, run.protocol, float(moved), len(shown))
        )
    columns = ["run", "teacher", "method", "seed", "protocol", "drift", "n"]
    return pd.DataFrame(rows, columns=columns)
