"""What a prompt before the teacher adds to a step of distillation, on training's own code."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from lightning_fabric import Fabric

from benchmarks.side_by_side import side_by_side
from benchmarks.timing import Variant
from fopro_lab.config import PromptForm, TrainConfig
from fopro_lab.data import Pack, Split
from fopro_lab.models import Teacher
from fopro_lab.training.train import TrainSetup, TrainState, build, train_epoch

UNPROMPTED = "EKD step, no prompt"
STEP_GOAL = 1 / 1.1
FORMS: tuple[PromptForm, ...] = ("generator", "shared", "ring", "radial", "image")


class Engine(NamedTuple):
    """What `train_epoch` takes."""

    setup: TrainSetup
    state: TrainState


def bench_steps(
    teacher: Teacher,
    packed: Pack,
    *,
    student: str,
    rounds: int,
    batch: int,
    label: str,
    forms: Sequence[PromptForm] = FORMS,
) -> pd.DataFrame:
    """Time epochs of `train_epoch` without a prompt, and with one before every batch.

    Images are not augmented, which would hide what the prompt costs. Explorations, which need
    the teacher's gradient, are not in it: their number is the recipe's choice.

    Args:
        teacher: On the device to compute on.
        packed: One step is taken for each ``batch`` of its images.
        student: Name for `build_student`.
        rounds: That count, at least 3.
        batch: Images a step.
        label: Of the progress.
        forms: Of the prompts.

    Returns:
        The table of `compare_rounds`, images a second.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> from fopro_lab.models import load_teacher
        >>> packed = pack(open_dataset("phantom", images=24), 16, progress=False)
        >>> bench_steps(load_teacher("builtin"), packed, student="small", rounds=3, batch=24,
        ...     label="steps", forms=["ring"])["variant"].tolist()
        ['EKD step, no prompt', 'EKD step, prompt of form ring']
    """
    asked: list[tuple[str, dict[str, Any], float]] = [(UNPROMPTED, {}, 0.0)]
    asked += [
        (f"EKD step, prompt of form {form}", {"method": "fopro", "prompt_form": form}, STEP_GOAL)
        for form in forms
    ]
    variants = [
        Variant(
            name,
            epoch_of(stage_of(teacher, packed, student=student, batch=batch, **knobs)),
            goal,
        )
        for name, knobs, goal in asked
    ]
    return side_by_side(variants, rounds=rounds, label=label, device=teacher.mean.device)


def stage_of(teacher: Teacher, packed: Pack, *, student: str, batch: int, **knobs: Any) -> Engine:
    """Set an epoch up, as `distill` does, for a teacher that need not have weights in a file.

    Args:
        teacher: On the device to compute on; shared, since nothing changes it.
        packed: All its images are trained on, unaugmented.
        student: Name for `build_student`; new, from seed 0.
        batch: Images a step.
        knobs: Of `TrainConfig`; the method is EKD if none is given.

    Returns:
        What `train_epoch` takes; a prompt is at the identity.
    """
    config = TrainConfig.from_mapping(
        {
            "method": "ekd",
            "student": student,
            "image_size": packed.size,
            "batch_size": batch,
            "augment": "none",
            "prompted_fraction": 1.0,
            **knobs,
        }
    )
    fabric = Fabric(accelerator=teacher.mean.device.type, devices=1, precision=config.precision)
    none = np.arange(0)
    split = Split(np.arange(len(packed)), none, none, protocol="benchmark", fingerprint="")
    return Engine(*build(config, fabric=fabric, packed=packed, split=split, teacher=teacher))


def epoch_of(engine: Engine) -> Callable[[], int]:
    """Make a run of one epoch that tells its number of images.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> from fopro_lab.models import load_teacher
        >>> packed = pack(open_dataset("phantom", images=24), 16, progress=False)
        >>> epoch_of(stage_of(load_teacher("builtin"), packed, student="small", batch=10))()
        20
    """

    def run() -> int:
        train_epoch(engine.state, engine.setup)
        return engine.setup.batches * engine.setup.batch_size

    return run
