import math

import pytest
import torch

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.fourier import FourierPrompt, apply_gain
from fopro_lab.fourier.rings import ring_gain

FORMS = ["generator", "shared", "ring", "radial", "image"]
DRAWN = FORMS[:-1]  # whose gain does not depend on the image


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make(form, *, scale=0.0, **settings):
    """A small prompt whose parameters are moved from the start by normal noise of ``scale``."""
    settings = {"size": (8, 10), "rows": 6, "rings": 3, "waves": 4, "noise": 4} | settings
    prompt = FourierPrompt(form, **settings)
    source = seeded(7)
    with torch.no_grad():
        for parameter in prompt.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=source)
    return prompt


def photos(height=8, width=10, *, dtype=torch.float32):
    return torch.rand(4, 3, height, width, generator=seeded(3), dtype=dtype)


@pytest.mark.parametrize("form", FORMS)
def test_a_new_prompt_is_exactly_the_identity(form):
    prompt = make(form, size=64)
    images = photos(64, 64)
    assert (prompt.gain(images, seeded()) == 1).all()
    assert (prompt.mean_gain() == 1).all()
    assert (prompt(images, seeded()) - images).abs().max() < 1e-6  # rounding of two FFTs


@pytest.mark.parametrize("form", FORMS)
def test_the_first_step_moves_a_new_prompt(form):
    prompt = make(form)
    optimiser = torch.optim.SGD(prompt.parameters(), lr=1.0)
    loss = prompt(photos(), seeded()).square().mean()
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 1e-6 for p in prompt.parameters())
    optimiser.step()
    assert (prompt.mean_gain() - 1).abs().max() > 1e-4
    assert prompt(photos(), seeded()).square().mean() < loss


@pytest.mark.parametrize("size", [(8, 10), (9, 7), (33, 12)])
@pytest.mark.parametrize("scale", [0.3, 100.0, 1e15])
@pytest.mark.parametrize("form", FORMS)
def test_gains_are_bounded_and_keep_dc(form, scale, size):
    prompt = make(form, scale=scale, max_log_gain=0.7)
    for gain in (prompt.gain(photos(*size), seeded()), prompt.mean_gain(size=size)):
        assert (gain[..., 0, 0] == 1).all()
        # 1e-6 is rounding; a bound of 0.7001 would fail.
        assert gain.log().abs().max() <= 0.7 + 1e-6
        assert gain.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_the_bound_can_be_reached(form):
    prompt = make(form, scale=100.0)
    assert prompt.gain(photos(), seeded()).log().abs().max() > 0.69


@pytest.mark.parametrize("form", FORMS)
def test_images_keep_their_mean_their_shape_and_are_real(form):
    prompt = make(form, scale=1.0)
    for size in ((8, 10), (7, 5), (12, 12)):
        images = photos(*size)
        found = prompt(images, seeded())
        assert found.shape == images.shape and found.dtype == torch.float32
        torch.testing.assert_close(found.mean(dim=(2, 3)), images.mean(dim=(2, 3)))
        assert not torch.allclose(found, images, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_the_gain_shown_is_the_gain_acted(form):
    # Read back amplitude ratios of the prompted images in every bin, also the mirrored ones.
    prompt = make(form, scale=1.0).double()
    images = photos(dtype=torch.float64)
    gain = prompt.gain(images, seeded())
    before, after = (torch.fft.rfft2(x).abs() for x in (images, prompt(images, seeded())))
    torch.testing.assert_close(after / before, gain, atol=1e-9, rtol=0)


@pytest.mark.parametrize("fill", [None, 0.0, 0.5], ids=["random", "black", "constant"])
@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_right_also_on_black_and_constant_images(form, fill):
    prompt = make(form, scale=0.5, size=(4, 5), rows=3, rings=2, channels=1).double()
    images = photos(4, 5, dtype=torch.float64)[:2, :1]
    images = (images if fill is None else torch.full_like(images, fill)).requires_grad_()
    names, values = zip(*prompt.named_parameters(), strict=True)

    def run(images, *values):
        state = dict(zip(names, values, strict=True))
        return torch.func.functional_call(prompt, state, (images, seeded()))

    # Random projections: the generator's 896 parameters one by one take too long.
    assert torch.autograd.gradcheck(run, (images, *values), fast_mode=True)
    run(images, *values).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in (images, *values))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", FORMS)
def test_autocast_and_half_precision_images(form, dtype):
    prompt = make(form, scale=0.5)
    images = photos(7, 9)
    plain = prompt(images, seeded())
    with torch.autocast("cpu", dtype=dtype):
        mixed = prompt(images, seeded())
        gain = prompt.gain(images, seeded())
    assert mixed.dtype == gain.dtype == torch.float32
    torch.testing.assert_close(mixed, plain, atol=0, rtol=0)
    half = prompt(images.to(dtype), seeded())
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), plain, atol=0.02, rtol=0)  # eight bits of a number
    assert prompt(images.to(dtype)[0], seeded()).dtype == dtype
    assert prompt.to(dtype)(images, seeded()).dtype == torch.float32


def test_the_generator_draws_what_its_generator_says():
    prompt = make("generator", scale=1.0)
    first, again, other = (prompt.sample_gain(4, seeded(s)) for s in (1, 1, 2))
    assert first.equal(again) and not first.equal(other)
    assert not first[0].equal(first[1])


@pytest.mark.parametrize("form", ["shared", "ring", "radial"])
def test_the_other_forms_give_every_image_the_same_gain(form):
    prompt = make(form, scale=1.0)
    gain = prompt.sample_gain(3)
    assert gain.shape == (3, 3, 8, 6)
    assert gain[2].equal(prompt.mean_gain())


def test_the_generators_mean_gain_is_geometric_over_fixed_noises():
    prompt = make("generator", scale=1.0)
    noises = torch.randn(256, 4, generator=seeded(0))
    gains = prompt.spread(prompt.network(noises))
    torch.testing.assert_close(prompt.mean_gain(), gains.log().mean(dim=0).exp())
    assert prompt.mean_gain().equal(prompt.mean_gain())


@pytest.mark.parametrize("form", FORMS)
def test_the_global_generator_is_not_touched(form):
    before = torch.get_rng_state()
    prompt = make(form)
    prompt.gain(photos(), seeded())
    prompt.mean_gain()
    assert torch.get_rng_state().equal(before)


def test_the_seed_decides_the_first_layer():
    first, again, other = (FourierPrompt(seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(first[name].equal(again[name]) for name in first)
    assert not first["network.first.weight"].equal(other["network.first.weight"])


def test_the_ring_form_uses_the_rings_of_ring_masks():
    prompt = make("ring", scale=1.0)
    log_gains = 0.7 * torch.tanh(prompt.cells)
    expected = ring_gain(log_gains.exp(), prompt.edges, height=8, width=10)
    assert prompt.mean_gain().equal(expected)
    assert prompt.edges[-1] == 0.75 and prompt.cells.shape == (3, 4)


@pytest.mark.parametrize("form", DRAWN)
def test_a_gain_that_is_drawn_is_the_one_that_images_get(form):
    prompt = make(form, scale=1.0)
    torch.testing.assert_close(prompt.gain(photos(), seeded()), prompt.sample_gain(4, seeded()))


def test_the_image_form_answers_the_images_own_spectrum():
    prompt, images = make("image", scale=0.3), photos(16, 16)
    prompt.observe(images)
    flat = 0.5 + 0.1 * (images - 0.5)  # a tenth of the contrast, the same phases
    gain, other = prompt.gain(images), prompt.gain(flat)
    assert (gain.log() - other.log()).abs().mean() > 0.05
    # Each image alone, in any company: nothing is standardised over the batch.
    torch.testing.assert_close(prompt.gain(images[:1]), gain[:1], atol=1e-4, rtol=0)
    turned = images.flip(-1)  # mirrored images have the same ring energies
    torch.testing.assert_close(prompt.gain(turned), gain, atol=1e-4, rtol=0)


def test_the_image_form_standardises_by_the_first_images_it_observes():
    prompt, images = make("image", scale=0.3), photos(16, 16)
    prompt.observe(images)
    measured = prompt.spectrum(images)
    torch.testing.assert_close(measured.mean(dim=0), torch.zeros(12), atol=1e-4, rtol=0)
    # Uniform noise has rings that hardly vary: their spread counts as 0.1 at least.
    assert (measured.std(dim=0, correction=0) <= 1 + 1e-4).all()
    middle = prompt.spread(prompt.network(torch.zeros(1, 12)))[0]
    torch.testing.assert_close(prompt.mean_gain(), middle)
    before = prompt.spectrum.mean.clone()
    prompt.observe(0.1 * images)
    assert prompt.spectrum.mean.equal(before)


def test_the_image_form_has_no_gain_without_images():
    with pytest.raises(InputError) as error:
        make("image").sample_gain(2)
    assert str(error.value) == ("form 'image': its gain depends on the image; use gain(images)")


@pytest.mark.parametrize("form", FORMS)
def test_shrinking_leads_to_the_identity(form):
    prompt, images = make(form, scale=0.2).requires_grad_(False), photos()
    sizes = []
    for factor in (1.0, 0.3, 0.3, 0.0):
        prompt.shrink_(factor)
        sizes.append(float(prompt.gain(images, seeded()).log().abs().mean()))
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3] == 0


def test_one_channel_serves_all_channels():
    prompt = make("shared", scale=1.0, channels=1)
    images = photos()
    expected = apply_gain(images, prompt.mean_gain().expand(3, -1, -1))
    torch.testing.assert_close(prompt(images), expected)


@pytest.mark.parametrize("form", FORMS)
def test_forward_refuses_other_channels(form):
    with pytest.raises(ShapeError, match=r"^images: expected 3 channels, got \(4, 2, 8, 10\)"):
        make(form)(photos()[:, :2])
    with pytest.raises(ShapeError, match=r"images: expected \(B, C, H, W\)"):
        make("shared")(torch.rand(8))


@pytest.mark.parametrize("form", FORMS)
def test_a_saved_prompt_comes_back_whole(form, tmp_path):
    prompt = make(form, scale=1.0, max_log_gain=0.5, seed=3)
    prompt.save(tmp_path / "prompt.safetensors")
    again = FourierPrompt.load(tmp_path / "prompt.safetensors")
    assert again.settings == prompt.settings and again.size == (8, 10)
    assert again.mean_gain().equal(prompt.mean_gain())
    assert again.gain(photos(), seeded()).equal(prompt.gain(photos(), seeded()))
    assert [path.name for path in tmp_path.iterdir()] == ["prompt.safetensors"]


@pytest.mark.parametrize("form", FORMS)
def test_the_state_dict_alone_restores_the_parameters(form):
    prompt, other = make(form, scale=1.0), make(form)
    other.load_state_dict(prompt.state_dict())
    assert other.mean_gain().equal(prompt.mean_gain())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"form": "rings"},
            "form: expected one of 'generator', 'shared', 'ring', 'radial', 'image', got 'rings'",
        ),
        ({"waves": 0}, "waves: expected a whole number 1 to 64, got 0"),
        ({"size": 0}, "size: expected a side or (height, width) in pixels, got [0, 0]"),
        ({"size": 6.5}, "size: expected a side or (height, width) in pixels, got [6.5, 6.5]"),
        ({"max_log_gain": 0}, "max_log_gain: expected a number above 0, got 0"),
        ({"max_log_gain": math.nan}, "max_log_gain: expected a number above 0, got nan"),
        ({"rows": 1}, "rows: expected a whole number 2 to 256, got 1"),
        ({"rings": 65}, "rings: expected a whole number 1 to 64, got 65"),
        ({"noise": True}, "noise: expected a whole number 1 to 512, got True"),
        ({"channels": 0}, "channels: expected a whole number 1 to 4096, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError) as error:
        FourierPrompt(**settings)
    assert str(error.value) == message
