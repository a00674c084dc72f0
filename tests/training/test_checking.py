import numpy as np
import pytest
import torch
from torch import nn

from fopro_lab.errors import InputError
from fopro_lab.fourier import FourierPrompt, ring_masks
from fopro_lab.models import wrap_teacher
from fopro_lab.training import HeldOut, explore, natural_distance
from tests.models.toys import norm_teacher, toy_images
from tests.training.explorations import labelled, run, same, seeded, snapshot


def seen(*, every=5):
    return HeldOut(*labelled(1)[0], every=every)


@pytest.mark.parametrize("form", ["shared", "radial", "generator", "image"])
def test_checks_stand_in_the_history_and_the_best_is_kept(form):
    _, history = run("task", form=form, steps=42, held_out=seen(every=20))
    checked = history.dropna()
    assert checked["step"].tolist() == [19, 39, 41]
    assert {"val_task", "val_balanced_accuracy", "val_drift", "kept"} <= set(history)
    assert history.loc[history["kept"] == 1, "step"].tolist() == [
        checked["step"][checked["val_task"].idxmin()]
    ]
    assert checked["val_drift"].gt(0).all()
    assert checked["val_task"].min() < np.log(3)  # of a head that knows nothing


def test_the_kept_prompt_is_the_one_of_its_step():
    # Held-out labels that contradict the training ones make every step worse than the start.
    images, labels = labelled(1)[0]
    wrong = HeldOut(images, (labels + 1) % 3, every=4)
    prompt, history = run("task", steps=12, held_out=wrong)
    kept = history.loc[history["kept"] == 1, "step"].tolist()
    expected = FourierPrompt("shared", size=16, rows=6, rings=3, noise=4)
    if kept:
        expected, _ = run("task", steps=kept[0] + 1)
    assert len(kept) == 0 or kept[0] < 11
    assert same(prompt, snapshot(expected))


def test_held_out_images_give_no_gradient_and_change_no_step():
    _, first = run("task", steps=6)
    _, second = run("task", steps=6, held_out=seen(every=2))
    columns = ["task", "total", "log_gain"]
    assert first[columns].equals(second[columns])


def test_patience_ends_an_exploration():
    images, labels = labelled(1)[0]
    wrong = HeldOut(images, (labels + 1) % 3, every=2, patience=2)
    _, history = run("task", steps=40, held_out=wrong)
    assert len(history) < 40
    assert history["val_task"].notna().iloc[-1]


def test_without_labels_the_weighted_sum_is_checked():
    prompt, history = run("statistics", steps=6, held_out=seen(every=3))
    assert "val_task" not in history and history["val_total"].notna().sum() == 2
    judged = natural_distance(norm_teacher(classes=6), seen().images, prompt=prompt)
    assert judged == pytest.approx(history["val_total"].min(), rel=1e-4)


def test_held_out_images_without_labels_are_refused():
    with pytest.raises(InputError, match=r"^held_out: expected as many labels as images, 1 or"):
        HeldOut(toy_images(2), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("form", ["shared", "ring", "radial", "generator", "image"])
def test_the_trust_region_holds(form, check):
    teacher, bound = norm_teacher(classes=6), 1e-4

    def turned(prompt, images):
        with torch.no_grad():
            plain, other = teacher.encode(images), teacher.encode(prompt(images, seeded(0)))
        return float((1 - torch.cosine_similarity(plain, other)).mean())

    held_out = seen() if check else None
    free, _ = run("statistics", form=form, steps=10)
    prompt, history = run("statistics", form=form, steps=10, max_drift=bound, held_out=held_out)
    images = held_out.images if check else labelled()[1][0]
    assert turned(free, images) > 2 * bound  # or there was nothing to hold
    # The bound is held on the images of the last check; noise draws others than the check's.
    assert turned(prompt, images) <= bound + 2e-7
    assert prompt.gain(images, seeded(0)).log().abs().max() > 1e-3  # and not by giving up
    assert history["drift"].iloc[0] == pytest.approx(0, abs=1e-6)


STRIPES = [0.0, 0.125, 0.25, 0.375, 0.5, 0.75]


def phantom(ring, *, count=64, side=32, seed=0):
    """Textures of random phase, direction and strength in every ring; one ring tells the class."""
    source = seeded(seed)
    images = torch.full((count, 3, side, side), 0.5)
    labels = torch.arange(count) % 2
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    for number, label in enumerate(labels.tolist()):
        for place in range(4):
            middle = (STRIPES[place] + STRIPES[place + 1]) / 2
            turn, phase, strength = torch.rand(3, generator=source)
            strength = 0.08 * label + 0.02 * strength if place == ring else 0.1 * strength
            turn, phase = 6.2832 * turn, 6.2832 * phase
            wave = torch.cos(6.2832 * middle * (turn.cos() * rows + turn.sin() * columns) + phase)
            images[number] += strength * wave
    return images, labels


class Energy(nn.Module):
    """A teacher that cannot tell rings apart: the contrast of the image, and of two colours."""

    def forward(self, images):
        deviations = images - images.mean(dim=(2, 3), keepdim=True)
        return deviations.square().mean(dim=(2, 3))


@pytest.mark.parametrize("form", ["ring", "radial", "shared"])
@pytest.mark.parametrize("ring", [1, 3])
def test_the_ring_in_which_a_class_lives_is_found(form, ring):
    # All rings reach the features as one sum. To tell the classes the prompt has to amplify the
    # ring of their texture above the others, whose strength is chance.
    teacher = wrap_teacher(Energy(), mean=[0.5] * 3, std=[0.25] * 3, input_size=32, feature_dim=3)
    prompt = FourierPrompt(form, size=32, rows=12, rings=4)
    explore(
        prompt, teacher, [phantom(ring, seed=seed) for seed in range(3)], steps=60,
        objectives={"task": 1.0}, learning_rate=0.05, class_counts=torch.tensor([1, 1]),
        held_out=HeldOut(*phantom(ring, seed=9)), generator=seeded(),
    )  # fmt: skip
    log_gain = prompt.mean_gain().detach().log().mean(dim=0)
    found = [float(log_gain[mask].mean()) for mask in ring_masks(32, 32, STRIPES)[:4]]
    others = [gain for number, gain in enumerate(found) if number != ring]
    assert found[ring] > max(others) + 0.1, found
