"""Draws that are shared out are those of the whole batch."""

import pytest
import torch

from fopro_lab.fourier import FourierPrompt, random_gain_like
from fopro_lab.fourier.prompt import Share, draw


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def moved(form: str) -> FourierPrompt:
    prompt = FourierPrompt(form, size=12, rows=4)
    with torch.no_grad():
        for value in prompt.parameters():
            value += 0.3 * torch.randn(value.shape, generator=seeded())
    return prompt


@pytest.mark.parametrize("form", ["generator", "shared", "image"])
def test_gains_of_two_shares_are_those_of_the_batch(form):
    # Noise drawn by each share for itself moves a gain of the generator by 0.1 and more.
    prompt, images = moved(form), torch.rand(7, 3, 12, 12, generator=seeded())
    whole = prompt.gain(images, seeded())
    parts = [prompt.gain(images[a:b], seeded(), share=Share(a, b, 7)) for a, b in ((0, 3), (3, 7))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-4)
    alone = prompt.gain(images[3:], seeded())
    assert (float((alone - whole[3:]).detach().abs().max()) > 0.1) == (form == "generator")


@pytest.mark.parametrize("per_image", [False, True])
def test_places_of_two_shares_are_those_of_the_batch(per_image):
    prompt = moved("shared")
    gain = prompt.sample_gain(6)

    def places(part: torch.Tensor, share: Share | None = None) -> torch.Tensor:
        how = {"size": (12, 12), "per_image": per_image, "share": share}
        return random_gain_like(prompt, part, seeded(), **how)

    parts = [places(gain[a:b], Share(a, b, 6)) for a, b in ((0, 3), (3, 6))]
    assert torch.equal(torch.cat(parts), places(gain))
    assert torch.equal(places(gain[3:]), places(gain)[3:]) == (not per_image)


def test_without_a_share_is_drawn_what_torch_draws():
    whole = torch.randn(5, 2, generator=seeded())
    assert torch.equal(draw(5, 2, generator=seeded()), whole)
    assert torch.equal(draw(2, 2, generator=seeded(), share=Share(3, 5, 5)), whole[3:])
