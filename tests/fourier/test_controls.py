import pytest
import torch

from fopro_lab.fourier import FourierPrompt, random_gain_like

FORMS = ["generator", "shared", "ring"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def learned(form, *, scale=0.3):
    prompt = FourierPrompt(form, size=(16, 18), rows=8, rings=4, noise=4)
    source = seeded(5)
    with torch.no_grad():
        for parameter in prompt.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=source)
    return prompt


@pytest.mark.parametrize("form", FORMS)
def test_mean_and_spread_are_the_prompts(form):
    # Shuffling alone would lose about a third of the spread between the cells.
    prompt = learned(form)
    found = random_gain_like(prompt, 6, seeded(1)).log().flatten(2)[..., 1:]
    expected = prompt.sample_gain(6, seeded(1)).log().flatten(2)[..., 1:]
    torch.testing.assert_close(found.mean(dim=2), expected.mean(dim=2), atol=0.01, rtol=0)
    torch.testing.assert_close(found.std(dim=2), expected.std(dim=2), atol=0, rtol=0.05)


@pytest.mark.parametrize("form", FORMS)
def test_the_arrangement_is_lost_and_differs_between_pictures(form):
    prompt = learned(form)
    found = random_gain_like(prompt, 64, seeded(1)).log().flatten(1)
    expected = prompt.sample_gain(64, seeded(1)).log().flatten(1)
    assert not found[0].equal(found[1])
    correlation = torch.stack(
        [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(found, expected, strict=True)]
    )
    # Nothing left of the arrangement is 0 up to 1 / sqrt(64 pictures); the prompt itself is 1.
    assert correlation.mean().abs() < 0.25


@pytest.mark.parametrize("scale", [0.3, 100.0])
@pytest.mark.parametrize("form", FORMS)
def test_the_bound_and_dc_are_kept(form, scale):
    gain = random_gain_like(learned(form, scale=scale), 4, seeded(), size=(9, 7))
    assert gain.shape == (4, 3, 9, 4)
    assert (gain[..., 0, 0] == 1).all()
    assert gain.log().abs().max() <= 0.7 + 1e-6


def test_the_channels_are_shuffled_alike():
    prompt = learned("shared")
    with torch.no_grad():
        prompt.cells[1:] = prompt.cells[0]
    gain = random_gain_like(prompt, 2, seeded())
    assert gain[:, 0].equal(gain[:, 2])


@pytest.mark.parametrize("form", FORMS)
def test_a_new_prompt_has_the_identity_as_its_control(form):
    assert (random_gain_like(learned(form, scale=0), 3, seeded()) == 1).all()


def test_the_control_is_seeded_and_needs_no_gradient():
    prompt = learned("generator")
    first, again, other = (random_gain_like(prompt, 3, seeded(s)) for s in (1, 1, 2))
    assert first.equal(again) and not first.equal(other)
    assert not first.requires_grad
