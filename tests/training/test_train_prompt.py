"""Prompt training: objectives, checks on held-out images, the bound of the drift, the control."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fopro_lab.config import TrainConfig
from fopro_lab.data import open_dataset, pack
from fopro_lab.fourier import (
    FourierPrompt,
    apply_gain,
    mean_amplitude,
    radial_frequency,
    ring_masks,
)
from fopro_lab.models import build_student, wrap_teacher
from fopro_lab.training import HeldOut, PromptedTeacher, draw_held_out, explore
from fopro_lab.training.losses import TaskHead
from fopro_lab.training.statistics import natural_images
from fopro_lab.training.train_prompt import (
    control_strength,
    drift,
    generator_for,
    prompt_training_epochs,
    prompted,
    prompted_share,
)
from tests.conftest import failure, refuses
from tests.fourier.toys import FORMS, make, seeded
from tests.models.toys import norm_teacher, toy_images
from tests.training.prompt_toys import COUNTS, labelled, run, same, seen


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({}, [0, 2, 4]),
        ({"prompt_every": 0}, [0]),
        ({"prompt_every": 0, "warmup_epochs": 3}, [3]),
        ({"prompt_every": 2, "warmup_epochs": 1}, [1, 3, 5]),
        ({"method": "random"}, [0, 2, 4]),
        ({"method": "ekd"}, []),
        ({"prompt_file": "a.safetensors"}, []),
    ],
)
def test_prompts_are_trained_when_the_config_says(options, epochs):
    assert prompt_training_epochs(TrainConfig(epochs=6, **options)) == epochs


def test_shares_of_prompted_batches_fall_and_seeds_are_those_of_earlier_versions():
    config = TrainConfig(epochs=6, warmup_epochs=1, prompted_fraction=0.8, prompted_decay=0.5)
    shares = [prompted_share(config, epoch) for epoch in range(6)]
    assert shares == pytest.approx([0, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert prompted_share(TrainConfig(epochs=1, prompted_decay=1.0), 0) == 0.75
    seeds = [
        generator_for(3, 1, purpose=f"explore {name}").initial_seed() for name in ("order", "noise")
    ]
    assert seeds == [1146321904740315213, 7323974006357215979]


@pytest.mark.parametrize("form", ["generator", "radial"])
@pytest.mark.parametrize("method", ["fopro", "random"])
def test_prompted_follows_its_generator_and_gives_no_gradient(method, form):
    prompt, images = make(form, scale=1.0, size=16), toy_images(3, 16)

    def draw(seed, place=0):
        config = TrainConfig(method=method, seed=place)
        strength = None if method == "fopro" else 1.0
        return prompted(images, prompt, config=config, noise=seeded(seed), strength=strength)

    assert torch.equal(draw(1), draw(1))
    assert torch.equal(draw(1), draw(2)) == (form != "generator")
    assert torch.equal(draw(1), draw(1, place=1)) == (method == "fopro")
    assert not draw(1).requires_grad
    # DC is kept, so every image keeps its mean colour; a gain of 1.001 on it would fail.
    means = draw(1).mean(dim=(2, 3)), images.mean(dim=(2, 3))
    torch.testing.assert_close(*means, rtol=1e-4, atol=1e-5)
    if method == "fopro":
        assert torch.equal(draw(1), prompt(images, seeded(1)).detach())


def test_the_control_per_view_is_that_of_all_seeds():
    prompt, images = make("shared", scale=1.0), toy_images(1, 16)

    def draw(seed: int, view: int) -> torch.Tensor:
        config = TrainConfig(method="random", random_gains="per-view", teacher_views=2, seed=seed)
        return prompted(images, prompt, config=config, noise=seeded(), strength=1.0, view=view)

    assert torch.equal(draw(0, 1), draw(5, 1))
    assert not torch.allclose(draw(0, 0), draw(0, 1), atol=1e-3)


def test_the_control_drifts_as_far_as_the_learned_gains():
    teacher, images = norm_teacher(), toy_images(8, 16)
    prompt, config = make("shared", scale=1.0), TrainConfig(method="random")
    strength, *drifts = control_strength(prompt, teacher, images, config=config)
    plain = teacher.encode(images)

    def found(strength):
        changed = prompted(images, prompt, config=config, noise=seeded(), strength=strength)
        return float(drift(plain, teacher.encode(changed)))

    # Unmatched they are apart, which makes this a test.
    assert found(strength) == pytest.approx(found(None), rel=0.02)
    assert found(1.0) != pytest.approx(found(None), rel=0.1)
    assert drifts == pytest.approx([found(None), found(strength)], rel=1e-5)


def test_held_out_images_are_balanced_and_always_the_same():
    packed = pack(open_dataset("phantom", images=40), 16, progress=False)
    held_out = draw_held_out(packed, np.arange(40), count=16, every=5)
    assert torch.bincount(held_out.labels).tolist() == [2] * 8 and held_out.every == 5
    assert draw_held_out(packed, np.arange(40), count=16, every=0) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_everything_is_computed_where_the_teacher_is():
    teacher = norm_teacher().cuda()
    prompt = FourierPrompt("generator", size=16, rows=6, noise=4)
    held_out = HeldOut(*labelled(1)[0], every=2)
    explore(prompt, teacher, labelled(), objectives={"statistics": 1.0, "task": 1.0}, steps=3,
            class_counts=COUNTS, held_out=held_out, max_drift=0.1, generator=seeded())  # fmt: skip
    assert all(p.device.type == "cuda" for p in prompt.parameters())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("objective", ["statistics", "task", "disagreement"])
def test_each_objective_lowers_its_own_term(form, objective):
    student = build_student("small", classes=3, teacher_dim=5)
    prompt, history = run(objective, form=form, student=student)
    assert list(history.columns) == ["step", objective, "total", "log_gain"]
    assert history["step"].tolist() == list(range(25))
    term = history[objective]
    assert term.iloc[-6:].mean() < term.iloc[:2].mean() - 1e-3 * abs(term.iloc[0])
    assert history["log_gain"].iloc[0] == 0 and history["log_gain"].iloc[-1] > 0
    assert (prompt.mean_gain() - 1).abs().max() > 1e-3


def test_the_total_is_the_weighted_sum():
    objectives = {"statistics": 0.5, "task": 1.5, "identity": 0.25}
    history = explore(
        FourierPrompt("shared", size=16), norm_teacher(), labelled(),
        objectives=objectives, steps=4, class_counts=COUNTS,
    )  # fmt: skip
    expected = sum(weight * history[name] for name, weight in objectives.items())
    np.testing.assert_allclose(history["total"], expected, rtol=1e-5, atol=1e-6)


def test_teacher_and_student_stand_still():
    teacher = norm_teacher()
    student = build_student("small", classes=3, teacher_dim=5).train()
    before = copy.deepcopy([teacher, student])
    explore(
        FourierPrompt("generator", size=16), teacher, labelled(), steps=3, student=student,
        objectives={"statistics": 1.0, "task": 1.0, "disagreement": 1.0}, class_counts=COUNTS,
    )  # fmt: skip
    assert same(teacher, before[0]) and same(student, before[1])
    assert not teacher.training and student.training
    assert all(p.grad is None for p in [*teacher.parameters(), *student.parameters()])
    assert not any(module._forward_pre_hooks for module in teacher.modules())


def test_a_value_that_is_not_finite_is_said_and_the_best_prompt_is_kept():
    prompt, (good, labels) = FourierPrompt("ring", size=16), labelled(1)[0]
    batches = [(good, labels), (torch.full_like(good, torch.nan), labels)]
    how = {"prompt": prompt, "batches": batches, "steps": 2, "held_out": seen(every=1)}
    assert failure(run, "statistics", **how) == (
        "prompt training: step 1 is not finite: {'statistics': nan}; train again with a lower "
        "prompt_learning_rate and another --out"
    )
    assert torch.isfinite(prompt.cells).all()


@pytest.mark.parametrize(
    ("objectives", "rule"),
    [
        ({"identity": 1.0}, r"objectives: expected one beside 'identity', got \['identity'\]$"),
        ({"disagreement": 1.0}, "^objective 'disagreement': expected a student, got none$"),
        ({"statistics": torch.nan}, "^objectives: expected weights of 0 or more, got"),
    ],
)
def test_an_objective_that_lacks_what_it_needs_is_said(objectives, rule):
    prompt, how = FourierPrompt("ring", size=16), {"objectives": objectives, "steps": 1}
    refuses(rule, explore, prompt, norm_teacher(), labelled(), **how)


def test_what_does_not_fit_is_said():
    refuses("got none; an iterator that is used up", run, "statistics", batches=iter(labelled(2)))
    refuses(r"^held_out: expected as many labels as images", HeldOut, toy_images(2), LABELS[:3])


@pytest.mark.parametrize("form", ["shared", "radial", "generator"])
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


def test_the_kept_prompt_is_the_one_of_its_step_or_of_a_trained_heads_start():
    # Held-out labels that contradict the training ones make every step worse than the one before.
    # What an untrained head says of the start does not count: it would be the best of all.
    prompt, history = run("task", steps=12, held_out=seen(every=4, shift=1))
    (kept,) = history.loc[history["kept"] == 1, "step"]
    assert kept < 11 and same(prompt, run("task", steps=kept + 1)[0])
    head = TaskHead(norm_teacher().feature_dim, classes=3)
    start, _ = run("task", steps=40, head=head)
    trained, prompt = copy.deepcopy(head), copy.deepcopy(start)
    _, history = run("task", steps=12, prompt=prompt, head=trained, held_out=seen(every=4, shift=1))
    assert not history["kept"].any() and same(prompt, start)


def test_held_out_images_change_no_step():
    _, first = run("task", steps=6)
    _, second = run("task", steps=6, held_out=seen(every=2))
    columns = ["task", "total", "log_gain"]
    assert first[columns].equals(second[columns])


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_the_trust_region_holds(form, check):
    teacher, bound = norm_teacher(), 1e-4

    @torch.no_grad()
    def turned(prompt, images):
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


LABELS = torch.zeros(8, dtype=torch.int64)
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


def test_a_prompted_teacher_answers_as_its_teacher_on_prompted_images():
    prompt, teacher, images = make("generator", scale=0.3), norm_teacher(), toy_images(6)
    behind = PromptedTeacher(teacher, prompt)
    with torch.no_grad():
        expected = teacher.encode(prompt(images, seeded(0)))
        assert torch.equal(behind.encode(images), expected)
        assert torch.equal(behind.encode(images), expected)  # the noise is the same every time
        assert not torch.allclose(expected, teacher.encode(images), atol=1e-3)
    assert behind.card["prompt"]["form"] == "generator" and "prompt" not in teacher.card


def smooth(images):
    return apply_gain(images, torch.exp(-((radial_frequency(16, 16) / 0.4) ** 2)))


@pytest.mark.parametrize("form", FORMS)
def test_spectrum_starts_in_closed_form_and_stays(form):
    prompt, (images, labels) = FourierPrompt(form, size=16, rings=6, rows=16), labelled(1)[0]
    how = {"prompt": prompt, "spectrum": (mean_amplitude(smooth(images)), mean_amplitude(images))}
    _, history = run("spectrum", batches=[(smooth(images), labels)], steps=3, **how)
    gain, radius = prompt.mean_gain().log().mean(dim=0), radial_frequency(16, 16)
    expected = ((radius / 0.4) ** 2).clamp(max=0.7)  # the inverse, within the prompt's bound
    assert (gain - expected)[radius > 0.06].abs().mean() < 0.08
    assert history["log_gain"].iloc[0] > 0.2  # before the first step
    _, continued = run("spectrum", batches=[(images, labels)], steps=1, **how)
    assert continued["log_gain"].iloc[0] > 0.2  # what was learned is not thrown away


def test_spectrum_without_a_reference_resembles_natural_images():
    natural, prompt = natural_images(32, size=16)[0], FourierPrompt("radial", size=16)
    batches = [(smooth(natural), torch.zeros(32, dtype=torch.int64))]
    run("spectrum", prompt=prompt, batches=batches, steps=1)
    gain, radius = prompt.mean_gain().log().mean(dim=0), radial_frequency(16, 16)
    assert (gain - ((radius / 0.4) ** 2).clamp(max=0.7))[radius > 0.06].abs().mean() < 0.12
