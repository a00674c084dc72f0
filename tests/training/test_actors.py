import numpy as np
import pytest
import torch

from fopro_lab.config import TrainConfig
from fopro_lab.errors import InputError
from fopro_lab.fourier import FourierPrompt
from fopro_lab.training.train import build_actors, build_prompt, generator_for, prompted
from tests.models.toys import toy_images

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
    waves = build_prompt(TrainConfig(prompt_form="radial", prompt_waves=4), size=32, seed=0)
    assert waves.cells.shape == (3, 4, 3)


@pytest.mark.parametrize("form", ["generator", "radial", "image"])
@pytest.mark.parametrize("moved", [False, True])
def test_prompted_follows_its_generators_and_gives_no_gradient(moved, form):
    prompt, images = moved_prompt(form), toy_images(3, 16)

    def draw(seed, place=0):
        noise, places = (torch.Generator().manual_seed(s) for s in (seed, place))
        return prompted(images, prompt, generator=noise, places=places if moved else None)

    assert torch.equal(draw(1), draw(1))
    assert torch.equal(draw(1), draw(2)) == (form != "generator")
    assert torch.equal(draw(1), draw(1, place=1)) == (not moved)
    assert not draw(1).requires_grad
    # DC is kept, so every image keeps its mean colour; a gain of 1.001 on it would fail.
    torch.testing.assert_close(
        draw(1).mean(dim=(2, 3)), images.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5
    )


def test_without_places_it_is_the_prompt_itself():
    prompt, images = moved_prompt(), toy_images(3, 16)
    found = prompted(images, prompt, generator=torch.Generator())
    assert torch.equal(found, prompt(images, torch.Generator()))


def test_the_control_of_a_new_prompt_changes_nothing():
    images = toy_images(3, 16)
    control = prompted(images, FourierPrompt("shared", size=16), generator=torch.Generator(),
                       places=torch.Generator())  # fmt: skip
    torch.testing.assert_close(control, images, rtol=0, atol=1e-6)


def test_a_prompt_from_a_file_is_fixed_and_has_no_head(tmp_path):
    path = tmp_path / "prompt.safetensors"
    moved_prompt("radial").save(path)
    actors = actors_of(method="fopro", prompt_file=str(path), objectives={"confidence": 1.0})
    assert actors.head is None and actors.reference is None
    assert actors.prompt.form == "radial"  # whatever the config says
    assert not any(parameter.requires_grad for parameter in actors.prompt.parameters())
    assert actors_of(method="ekd", prompt_file=str(path)).prompt is None
    with pytest.raises(InputError, match="no such file"):
        actors_of(method="random", prompt_file=str(tmp_path / "other"))
    FourierPrompt("ring", channels=2).save(path)
    with pytest.raises(InputError) as error:
        actors_of(method="fopro", prompt_file=str(path))
    assert str(error.value) == "prompt_file: expected a prompt of 1 or 3 channels, got 2"


def test_the_card_says_what_statistics_are_compared_with():
    actors = actors_of(method="fopro")
    assert actors.teacher.card["statistics"] == actors.reference.source
    assert actors.reference.source == "running statistics of its 12 batch norms"
    assert actors_of(method="fopro", objectives={"task": 1.0}).reference is None


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
