"""What changed: test images that two runs answer differently, and the frequencies behind it."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fopro_lab.config import RefineConfig
from fopro_lab.data import float_images, read_pixels
from fopro_lab.errors import InputError
from fopro_lab.evaluation import Run
from fopro_lab.evaluation.scores import GROUPS, align
from fopro_lab.fourier import apply_gain, ring_edges, ring_masks
from fopro_lab.models.student import Student, shrink
from fopro_lab.training import TrainedRun
from fopro_lab.training.refine import open_images

EDGES = ring_edges(8)
Changes = tuple[pd.DataFrame, np.ndarray, list[np.ndarray]]  # what `explain_changes` returns


def explain_changes(runs: Sequence[Run], *, most: int = 8) -> Changes:
    """Attribute the true class's logit to frequency rings where exactly one of two runs is right.

    The two are the first run and, of other methods of its protocol and seed, the one that differs
    most. Up to ``most`` images are taken, of the tail first, then by how far the margins (true
    logit minus the highest other) are apart. Returns a row per method, image and ring, the images,
    ``uint8 (N, H, W, 3)``, and with the extra ``cam`` Grad-CAM of each student, ``(N, h, w)``.

    Raises:
        InputError: If there are no such runs or images, or a run's student or data are gone.
    """
    own = {(run.protocol, run.seed) for run in runs[:1]}
    others = [r for r in runs if (r.protocol, r.seed) in own and r.method != runs[0].method]
    found = [(changed_images(runs[0], run), run) for run in others]
    table, second = max(found, key=lambda each: len(each[0]), default=(pd.DataFrame(), None))
    if second is None or (table := table.head(most)).empty:
        got = ", ".join(run.name for run in runs) or "none"
        raise InputError(f"runs: expected students of two methods, with other answers, got {got}")
    pair = [TrainedRun.read(run.path) for run in (runs[0], second)]
    students = [run.student() for run in pair]  # before the images, which may have to be packed
    packed, split = open_images(pair[0], RefineConfig(device="cpu"), None, None)
    rows = pd.Index(packed.dataset.table["image"]).get_indexer(table["image"])
    pixels = read_pixels(packed, rows)
    images, labels = float_images(pixels), torch.tensor(table["label"].to_numpy())
    rings = pd.DataFrame({"ring": range(len(EDGES) - 1), "low": EDGES[:-1], "high": EDGES[1:]})
    parts, maps = [], list[np.ndarray]()
    for run, student in zip(pair, students, strict=True):
        values = ring_attribution(run.classifier(packed, split), images, labels).numpy()
        part = table[["image", "class", "group"]].assign(method=run.method, protocol=run.protocol)
        part["answered"], part["right"] = table[run.method], table[run.method] == table["class"]
        parts.append(part.merge(rings, how="cross").assign(attribution=values.ravel()))
        if find_spec("pytorch_grad_cam"):
            maps.append(grad_cam(student, shrink(images, run.train_config.student_size), labels))
    return pd.concat(parts, ignore_index=True), pixels.numpy(), maps


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

    Of a linear student, it is what a ring of the image adds to the logit. DC is in no ring.
    """
    masks = ring_masks(images.shape[2], images.shape[3], EDGES).to(images.dtype)
    gains = images.new_ones(len(images), len(masks)).requires_grad_()
    whole = torch.einsum("br,rhw->bhw", gains, masks) + (masks.sum(dim=0) == 0)
    logits = of(apply_gain(images, whole[:, None]))
    return torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), gains)[0]


def grad_cam(student: Student, images: Tensor, labels: Tensor) -> np.ndarray:
    """Return Grad-CAM (Selvaraju et al., ICCV 2017) in the last feature maps; NaN without such."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    seen, watch = list[tuple[nn.Module, torch.Size]](), nn.modules.module
    hook = watch.register_module_forward_hook(lambda part, _, out: seen.append((part, out.shape)))
    student.classify(images[:1])
    hook.remove()
    *_, (layer, shape) = [each for each in seen if len(each[1]) > 2 and each[1][2:] != (1, 1)]
    if len(shape) != 4 or shape[2] != shape[3]:  # tokens, or channels last
        return np.full((len(images), 1, 1), np.nan)
    with GradCAM(nn.Sequential(student.backbone, student.classifier), [layer]) as cam:
        return cam((images - student.mean) / student.std, list(map(ClassifierOutputTarget, labels)))
