import numpy as np
import pytest
import torch

from fopro_lab.config import TrainConfig
from fopro_lab.errors import InputError
from fopro_lab.fourier import FourierPrompt
from fopro_lab.training.actors import build_actors, build_prompt, generator_for, prompted
from tests.models.toys import pictures

CPU = torch.device("cpu")
COUNTS = np.array([30, 10, 2])


def actors_of(**settings):
    return build_actors(TrainConfig(image_size=32, **settings), class_counts=COUNTS, device=CPU)


def moved_prompt(form="shared"):
    prompt = FourierPrompt(form, size=16, rows=6, rings=3, noise=4)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in prompt.parameters():
            parameter += torch.randn(parameter.shape, generator=source)
    return prompt


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("ce", {"student"}),
        ("bsm", {"student"}),
        ("ekd", {"student"}),
        ("fopro", {"student", "prompt", "head"}),
        ("random", {"student", "prompt", "head"}),
    ],
)
def test_each_method_gets_what_it_needs(method, parts):
    actors = actors_of(method=method)
    assert set(actors.state()) == parts
    distils = method in ("ekd", "fopro", "random")
    assert (actors.teacher is not None) == distils
    assert (actors.student.projector is not None) == distils
    if actors.head is not None:
        assert actors.head.linear.out_features == len(COUNTS)
        assert actors.head.linear.in_features == actors.teacher.feature_dim


def test_methods_of_one_seed_start_alike():
    # Otherwise a difference between methods would be one of initial weights.
    fopro, control, baseline = (actors_of(method=m, seed=4) for m in ("fopro", "random", "bsm"))
    for name, value in fopro.student.state_dict().items():
        assert torch.equal(value, control.student.state_dict()[name])
    for name, value in baseline.student.state_dict().items():
        assert torch.equal(value, fopro.student.state_dict()[name])
    for name, value in fopro.prompt.state_dict().items():
        assert torch.equal(value, control.prompt.state_dict()[name])


def test_state_goes_out_and_in():
    one, two = actors_of(method="fopro", seed=1), actors_of(method="fopro", seed=2)
    two.load_state(one.state())
    for part, state in one.state().items():
        assert all(torch.equal(value, two.state()[part][name]) for name, value in state.items())


def test_missing_weights_are_said_before_anything_is_built():
    with pytest.raises(InputError, match="weights: expected a file with the weights of timm:x"):
        actors_of(method="ekd", teacher="timm:x")


def test_build_prompt_follows_the_config():
    config = TrainConfig(prompt_form="ring", prompt_rings=5, max_log_gain=0.3)
    prompt = build_prompt(config, size=32, seed=0)
    assert (prompt.form, prompt.max_log_gain) == ("ring", 0.3)
    assert sum(p.numel() for p in prompt.parameters()) == 3 * (5 + 1)  # and the corner ring
    assert (prompt.mean_gain() == 1).all()


@pytest.mark.parametrize("random", [False, True])
def test_prompted_follows_its_generator_and_gives_no_gradient(random):
    prompt, images = moved_prompt("generator"), pictures(3, 16)

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return prompted(images, prompt, random=random, generator=generator)

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))
    assert not draw(1).requires_grad
    # DC is kept, so every picture keeps its mean colour; a gain of 1.001 on it would fail.
    torch.testing.assert_close(
        draw(1).mean(dim=(2, 3)), images.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5
    )


def test_the_control_takes_another_arrangement_than_the_prompt():
    prompt, images = moved_prompt(), pictures(3, 16)
    learned, control = (
        prompted(images, prompt, random=random, generator=torch.Generator().manual_seed(0))
        for random in (False, True)
    )
    assert torch.equal(learned, prompt(images, torch.Generator().manual_seed(0)))
    assert (learned - control).abs().max() > 1e-2


def test_the_control_of_a_new_prompt_changes_nothing():
    images = pictures(3, 16)
    control = prompted(images, FourierPrompt("shared", size=16), random=True,
                       generator=torch.Generator())  # fmt: skip
    torch.testing.assert_close(control, images, rtol=0, atol=1e-6)


def test_generators_depend_on_numbers_and_purpose():
    def first(*numbers, purpose):
        return float(torch.rand(1, generator=generator_for(*numbers, purpose=purpose)))

    assert first(0, 1, purpose="prompt") == first(0, 1, purpose="prompt")
    others = {
        first(0, 1, purpose="prompt"),
        first(1, 0, purpose="prompt"),
        first(0, 2, purpose="prompt"),
        first(0, 1, purpose="explore"),
        first(0, purpose="prompt"),
    }
    assert len(others) == 5
