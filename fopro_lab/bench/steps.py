"""What a prompt before the teacher adds to a step of distillation, on training's own code."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from lightning_fabric import Fabric

from fopro_lab.bench.side_by_side import side_by_side
from fopro_lab.bench.timing import Variant
from fopro_lab.config import PromptForm, TrainConfig
from fopro_lab.data import Pack
from fopro_lab.models import Teacher, build_student
from fopro_lab.training.actors import Actors, build_prompt
from fopro_lab.training.epochs import train_epoch
from fopro_lab.training.stages import Stage, set_stage

UNPROMPTED = "EKD step, no prompt"
STEP_GOAL = 1 / 1.1
FORMS: tuple[PromptForm, ...] = ("generator", "shared", "ring", "radial", "image")


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

    Pictures are not augmented, which would hide what the prompt costs. Explorations, which need
    the teacher's gradient, are not in it: their number is the recipe's choice.

    Args:
        teacher: On the device to compute on.
        packed: One step is taken for each ``batch`` of its pictures.
        student: Name for `build_student`.
        rounds: That count, at least 3.
        batch: Pictures a step.
        label: Of the progress.
        forms: Of the prompts.

    Returns:
        The table of `compare_rounds`, steps a second.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> from fopro_lab.models import load_teacher
        >>> packed = pack(open_dataset("phantom", pictures=24), 16, progress=False)
        >>> bench_steps(load_teacher("builtin"), packed, student="small", rounds=3, batch=24,
        ...     label="steps", forms=["ring"])["variant"].tolist()
        ['EKD step, no prompt', 'EKD step, prompt of form ring']
    """
    asked: list[tuple[str, PromptForm | None, float]] = [(UNPROMPTED, None, 0.0)]
    asked += [(f"EKD step, prompt of form {form}", form, STEP_GOAL) for form in forms]
    variants = [
        Variant(
            name, _steps(stage_of(teacher, packed, student=student, batch=batch, form=form)), goal
        )
        for name, form, goal in asked
    ]
    return side_by_side(variants, rounds=rounds, label=label, device=teacher.mean.device)


def stage_of(
    teacher: Teacher, packed: Pack, *, student: str, batch: int, form: PromptForm | None
) -> Stage:
    """Set an epoch up, as `distill` does, for a teacher that need not have weights in a file.

    Args:
        teacher: On the device to compute on; shared, since nothing changes it.
        packed: All its pictures are trained on.
        student: Name for `build_student`; new, from seed 0.
        batch: Pictures a step.
        form: Of a prompt at the identity, before every batch; None is EKD alone.

    Returns:
        What `train_epoch` takes.
    """
    config = TrainConfig.from_mapping(
        {
            "method": "fopro" if form else "ekd",
            "student": student,
            "image_size": packed.size,
            "batch_size": batch,
            "augment": "none",
            "prompted_fraction": 1.0,
            **({"prompt_form": form} if form else {}),
        }
    )
    device = teacher.mean.device
    fabric = Fabric(accelerator=device.type, devices=1, precision=config.precision)
    counts = np.bincount(packed.labels, minlength=len(packed.dataset.class_names))
    actors = Actors(
        build_student(student, classes=len(counts), teacher_dim=teacher.feature_dim).to(device),
        teacher,
        build_prompt(config, size=packed.size, seed=0).to(device) if form else None,
        head=None,
    )
    rows = np.arange(len(packed))
    return set_stage(
        config, fabric=fabric, actors=actors, packed=packed, rows=rows, class_counts=counts
    )


def _steps(stage: Stage) -> Callable[[], int]:
    steps = len(stage.rows) // stage.config.batch_size

    def run() -> int:
        train_epoch(stage, 0)
        return steps

    return run
