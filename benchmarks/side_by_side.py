"""Variants of one table: the first is the reference, all on one device."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch

from benchmarks.timing import Variant, compare_rounds, time_rounds
from fopro_lab.io import progress

ON_GPU = ", on the GPU"


def side_by_side(
    variants: Sequence[Variant],
    *,
    rounds: int,
    label: str,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """Time variants in turns, say how far it is, and compare each with the first.

    Args:
        variants: The reference first; on a GPU each is waited for, and named so.
        rounds: Rounds that count, at least 3.
        label: Of the progress.
        device: Where they compute.

    Returns:
        The table of `compare_rounds`.

    Raises:
        InputError: As `time_rounds`.

    Example:
        >>> table = side_by_side([Variant("a", lambda: 1), Variant("b", lambda: 1, goal=1e-9)],
        ...     rounds=3, label="nothing")
        >>> table["reached"].tolist()
        ['', 'yes']
    """
    if torch.device(device).type == "cuda":
        variants = [_waited_for(variant) for variant in variants]
    timed = time_rounds(
        variants,
        rounds=rounds,
        watch=lambda steps: progress(steps, total=rounds + 1, label=f"timing: {label}"),
    )
    goals = {variant.name: variant.goal for variant in variants if variant.goal}
    return compare_rounds(timed, reference=variants[0].name, goals=goals)


def _waited_for(variant: Variant) -> Variant:
    """Let the clock stop when the GPU is done, not when it has been told what to do."""

    def run() -> int:
        count = variant.run()
        torch.cuda.synchronize()
        return count

    return replace(variant, name=variant.name + ON_GPU, run=run)
