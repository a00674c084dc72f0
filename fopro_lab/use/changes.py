"""What changed: test images that two runs answer differently, and the frequencies behind it."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.config import RefineConfig
from fopro_lab.data import float_images, read_pixels
from fopro_lab.errors import InputError
from fopro_lab.evaluation import Run
from fopro_lab.evaluation.scores import GROUPS, align
from fopro_lab.fourier import apply_gain, ring_edges, ring_masks
from fopro_lab.training import TrainedRun
from fopro_lab.training.refine import open_images

EDGES = ring_edges(8)


def explain_changes(runs: Sequence[Run], *, most: int = 8) -> tuple[pd.DataFrame, np.ndarray]:
    """Attribute the true class's logit to frequency rings where exactly one of two runs is right.

    These are the first and, of other methods of its protocol and seed, the one that differs most.
    Up to ``most`` images, of the tail first, then by how far margins (true logit minus the highest
    other) are apart. Returns a row per method, image and ring, and images, ``uint8 (N, H, W, 3)``.
    """
    own = {(run.protocol, run.seed) for run in runs[:1]}
    others = [r for r in runs if (r.protocol, r.seed) in own and r.method != runs[0].method]
    found = [(changed_images(runs[0], run), run) for run in others]
    table, second = max(found, key=lambda each: len(each[0]), default=(pd.DataFrame(), None))
    if second is None or (table := table.head(most)).empty:
        got = ", ".join(run.name for run in runs) or "none"
        raise InputError(f"runs: expected students of two methods, with other answers, got {got}")
    pair = [TrainedRun.read(run.path) for run in (runs[0], second)]
    packed, split = open_images(pair[0], RefineConfig(device="cpu"), None, None)
    pixels = read_pixels(
        packed, pd.Index(packed.dataset.table["image"]).get_indexer(table["image"])
    )
    labels, parts = torch.tensor(table["label"].to_numpy()), []
    rings = pd.DataFrame({"ring": range(len(EDGES) - 1), "low": EDGES[:-1], "high": EDGES[1:]})
    for run in pair:
        values = ring_attribution(run.classifier(packed, split), float_images(pixels), labels)
        part = table[["image", "class", "group"]].assign(method=run.method, protocol=run.protocol)
        part["answered"], part["right"] = table[run.method], table[run.method] == table["class"]
        parts.append(part.merge(rings, how="cross").assign(attribution=values.numpy().ravel()))
    return pd.concat(parts, ignore_index=True), pixels.numpy()


def changed_images(first: Run, second: Run) -> pd.DataFrame:
    """List the test images that exactly one run has right, as `explain_changes` orders them."""
    both = align([first.predictions, second.predictions], first.groups)
    table = first.predictions.query("split == 'test'").sort_values("image", ignore_index=True)
    table = table[["image", "label"]].assign(**{"class": np.take(both.names, both.labels)})
    table["group"], true = table["class"].map(both.groups), np.eye(len(both.names))[both.labels] > 0
    margins = [x[true] - np.where(true, -np.inf, x).max(axis=1) for x in both.logits]
    for run, logits in zip((first, second), both.logits, strict=True):
        table[run.method] = np.take(both.names, logits.argmax(axis=1))
    hits = table[[first.method, second.method]].eq(table["class"], axis=0).sum(axis=1)
    order = np.lexsort((-abs(margins[0] - margins[1]), -table["group"].map(GROUPS.index)))
    return table.iloc[order][hits.iloc[order] == 1]


def ring_attribution(of: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """Return gradient times gain, ``(B, R)``: the slope of the true logit in each ring's gain at 1.

    Of a linear student, what a ring of the image adds to the logit. DC is in no ring.
    """
    masks = ring_masks(images.shape[2], images.shape[3], EDGES).to(images.dtype)
    gains = images.new_ones(len(images), len(masks)).requires_grad_()
    whole = torch.einsum("br,rhw->bhw", gains, masks) + (masks.sum(dim=0) == 0)
    logits = of(apply_gain(images, whole[:, None]))
    return torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), gains)[0]
