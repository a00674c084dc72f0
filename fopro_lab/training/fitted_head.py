"""Prompt training against a linear head that is fitted in closed form before every step.

A head trained by the prompt's optimiser starts untrained and lags behind: the score then measures
the head. Here it is a shrunken discriminant of the kept features of many images, all classes alike.
"""

from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fopro_lab.data.batches import seeded_generator
from fopro_lab.errors import InputError
from fopro_lab.evaluation import balanced_accuracy
from fopro_lab.evaluation.metrics import discriminant
from fopro_lab.fourier import FourierPrompt
from fopro_lab.fourier.gain import scale_spectrum
from fopro_lab.fourier.spectrum import fit_prompt, mean_amplitude, spectrum_gain
from fopro_lab.models import Teacher
from fopro_lab.training.train_prompt import CHUNK, HeldOut, drift, encode

SHRINKAGE = 3.0  # of the covariance, which 2,500 images of 1,280 features hardly know
SCALES = tuple(2.0**n for n in range(-9, 5))  # of a probe's logits
TEMPERATURES = tuple(2.0**-n for n in range(10))  # of the head's logits, chosen before each step


def explore_fitted(
    prompt: FourierPrompt,
    teacher: Teacher,
    images: Tensor,
    labels: Tensor,
    *,
    units: np.ndarray,
    held_out: HeldOut,
    steps: int = 10,
    batch_size: int = 256,
    learning_rate: float = 0.05,
    seed: int = 0,
) -> pd.DataFrame:
    """Train a prompt without noise towards the task, and keep it only if it scores better.

    Each step scores a batch by a head fitted on the kept features of all other lesions. The
    identity, the prompt as it came and the prompt after the steps are compared on held-out images,
    by such a head each, fitted on all training images; the best is kept. Cross-validation within
    the training images cannot choose: the steps have seen their labels.

    Args:
        prompt: Changed in place; ring, radial or shared. From the identity steps find nothing.
        teacher: Frozen.
        images: ``(N, 3, H, W)`` in [0, 1], of training.
        labels: ``(N,)``, every class from 0 to K - 1 among them.
        units: Lesion or patient of each image, ``(N,)``.
        held_out: Images of other lesions, which choose the candidate and give no gradient.
        steps: Of Adam; without any, validation chooses between identity and start.
        batch_size: Images per step, half of them drawn class-balanced.
        learning_rate: Adam's.
        seed: Of the batches.

    Returns:
        A row for ``identity``, ``start`` and, after steps, ``learned``: ``candidate``,
        ``balanced_accuracy`` (held out), ``drift`` (of training images, mean ``1 - cos``),
        ``kept`` (1 for one row).
    """
    if prompt.form == "generator":
        raise InputError("prompt: expected ring, radial or shared, got 'generator'")
    if not len(images) == len(labels) == len(units):
        got = f"{len(images)}, {len(labels)} and {len(units)}"
        raise InputError(f"images, labels, units: expected as many of each, got {got}")
    unit = torch.from_numpy(np.unique(units, return_inverse=True)[1])
    size = (images.shape[2], images.shape[3])
    start = prompt.cells.detach().clone()
    kept = _encode(teacher, images, prompt.mean_gain(size=size))
    candidates = {"identity": (torch.zeros_like(start), _encode(teacher, images, None))}
    candidates["start"] = (start, kept.clone())
    optimiser = torch.optim.Adam(prompt.parameters(), lr=learning_rate)
    source, counts = seeded_generator(seed, 2), torch.bincount(labels)
    chance = 1 / counts[labels] / len(counts) + 1 / len(labels)
    for _ in range(steps):
        rows = torch.multinomial(chance, min(batch_size, len(labels)), generator=source)
        others = ~torch.isin(unit, unit[rows])
        rows = rows[torch.isin(labels[rows], labels[others])]  # else the head has no such class
        weight, bias = fit_head(kept[others], labels[others], classes=len(counts))
        shares = 1 / torch.bincount(labels[rows], minlength=len(counts))[labels[rows]]
        shares = shares / shares.sum()
        logits = kept[rows] @ weight + bias
        errors = [(shares * F.cross_entropy(t * logits, labels[rows], reduction="none")).sum()
                  for t in TEMPERATURES]  # fmt: skip
        scale = TEMPERATURES[int(torch.stack(errors).argmin())]
        gain = prompt.mean_gain(size=size)
        leaf = gain.detach().requires_grad_()
        for some, share in zip(rows.split(CHUNK), shares.split(CHUNK), strict=True):
            found = teacher.encode(scale_spectrum(images[some], leaf)).float()
            loss = F.cross_entropy(scale * (found @ weight + bias), labels[some], reduction="none")
            (share * loss).sum().backward()
            kept[some] = found.detach()
        optimiser.zero_grad()
        gain.backward(leaf.grad)
        optimiser.step()
    if steps:
        learned = _encode(teacher, images, prompt.mean_gain(size=size))
        candidates["learned"] = (prompt.cells.detach().clone(), learned)
    lines = []
    for name, (cells, features) in candidates.items():
        prompt.cells.data.copy_(cells)
        acting = None if name == "identity" else prompt.mean_gain(size=size)
        weight, bias = fit_head(features, labels, classes=len(counts))
        predicted = (_encode(teacher, held_out.images, acting) @ weight + bias).argmax(dim=1)
        score = balanced_accuracy(held_out.labels.numpy(), predicted.numpy())
        lines.append((name, score, float(drift(candidates["identity"][1], features))))
    table = pd.DataFrame(lines, columns=["candidate", "balanced_accuracy", "drift"])
    best = table["balanced_accuracy"].idxmax()  # of equals the nearest to the identity
    prompt.cells.data.copy_(candidates[table["candidate"][best]][0])
    return table.assign(kept=(table.index == best) * 1)


def spectrum_prompt(
    teacher: Teacher,
    images: Tensor,
    labels: Tensor,
    *,
    aim: Tensor,
    units: np.ndarray,
    held_out: HeldOut,
    max_log_gain: float,
) -> tuple[FourierPrompt, float]:
    """Make the radial prompt towards a spectrum, in closed form, if held-out images score better.

    Arguments are those of `explore_fitted`; ``aim`` is of `mean_amplitude`. Beside the prompt comes
    its drift; 0 if the identity was better, which the prompt then is.
    """
    size = (images.shape[2], images.shape[3])
    prompt = FourierPrompt("radial", size=size[0], max_log_gain=max_log_gain)
    gain = spectrum_gain(mean_amplitude(images), aim, size=size, max_log_gain=max_log_gain)
    fit_prompt(prompt, gain)
    table = explore_fitted(prompt, teacher, images, labels, units=units, held_out=held_out, steps=0)
    kept = table[table["kept"] == 1].iloc[0]
    return prompt, 0.0 if kept["candidate"] == "identity" else float(kept["drift"])


def fit_head(features: Tensor, labels: Tensor, *, classes: int) -> tuple[Tensor, Tensor]:
    """Fit the shrunken `discriminant` on the CPU: weight ``(D, K)`` and bias ``(K,)``."""
    exact = features.double().numpy(), labels.numpy()
    weight, bias = discriminant(*exact, classes=classes, shrinkage=SHRINKAGE)
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()


def fit_probe(
    features: Tensor, labels: Tensor, *, held_out: tuple[Tensor, Tensor], classes: int
) -> tuple[Tensor, Tensor]:
    """Fit a linear probe of the teacher, all classes alike: weight ``(K, D)`` and bias ``(K,)``.

    It is the shrunken discriminant of features ``(N, D)``, on the CPU; its logits are scaled for
    the lowest cross-entropy, mean over the classes, of ``held_out`` features and labels.
    """
    weight, bias = fit_head(features, labels, classes=classes)
    others, known = held_out
    logits, share = others @ weight + bias, 1 / known.bincount(minlength=classes).clamp(min=1)
    errors = torch.stack([F.cross_entropy(s * logits, known, weight=share) for s in SCALES])
    scale = SCALES[int(errors.argmin())]
    return scale * weight.T, scale * bias


def _encode(teacher: Teacher, images: Tensor, gain: Tensor | None) -> Tensor:
    change = partial(scale_spectrum, gain=gain) if gain is not None else nn.Identity()
    return encode(teacher, images, change).float()
