"""The prompt: identity at the start, bounds, gradients, every form, files, and torch's tools."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from fopro_lab.fourier import FourierPrompt
from fopro_lab.fourier.prompt import Share, resample, sum_of_waves
from tests.conftest import complaint, refuses
from tests.fourier.toys import FORMS, make, seeded

sides = st.integers(1, 13)
SETTINGS = FourierPrompt("ring", rings=2).settings
CELLS = {"cells": torch.zeros(3, 3)}


def photos(height=8, width=10, *, count=4, dtype=torch.float32):
    return torch.rand(count, 3, height, width, generator=seeded(3), dtype=dtype)


@pytest.mark.parametrize("form", FORMS)
def test_a_new_prompt_is_the_identity_and_shrinking_leads_back_to_it(form):
    prompt = make(form, size=64)
    images = photos(64, 64)
    assert (prompt.gain(images, seeded()) == 1).all()
    assert (prompt.mean_gain() == 1).all()
    assert (prompt(images, seeded()) - images).abs().max() < 1e-6  # rounding of two FFTs
    prompt, images = make(form, scale=0.2).requires_grad_(False), photos()
    sizes = []
    for factor in (1.0, 0.3, 0.3, 0.0):
        prompt.shrink_(factor)
        sizes.append(float(prompt.gain(images, seeded()).log().abs().mean()))
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3] == 0


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
def test_the_gain_shown_is_the_gain_acted_and_comes_back_whole_from_a_file(form, tmp_path):
    # Read back amplitude ratios of the prompted images in every bin, also the mirrored ones.
    prompt = make(form, scale=1.0).double()
    images = photos(dtype=torch.float64)
    gain, prompted = prompt.gain(images, seeded()), prompt(images, seeded())
    before, after = (torch.fft.rfft2(x).abs() for x in (images, prompted))
    torch.testing.assert_close(after / before, gain, atol=1e-9, rtol=0)
    torch.testing.assert_close(prompted.mean(dim=(2, 3)), images.mean(dim=(2, 3)))
    prompt = make(form, scale=1.0, max_log_gain=0.5, seed=3)
    prompt.save(tmp_path / "prompt.safetensors")
    again = FourierPrompt.load(tmp_path / "prompt.safetensors")
    assert again.settings == prompt.settings and again.size == (8, 10)
    assert again.mean_gain().equal(prompt.mean_gain())
    assert again.gain(photos(), seeded()).equal(prompt.gain(photos(), seeded()))


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


def test_the_generators_mean_gain_is_geometric_over_fixed_noises():
    prompt = make("generator", scale=1.0)
    noises = torch.randn(256, 4, generator=seeded(0))
    gains = prompt.spread(prompt.network(noises).unflatten(1, prompt.shape))
    torch.testing.assert_close(prompt.mean_gain(), gains.log().mean(dim=0).exp())
    assert prompt.mean_gain().equal(prompt.mean_gain())


def test_settings_out_of_range_and_other_channels_are_refused():
    for wrong, rule in (
        ({"form": "rings"}, "^form: expected one of 'generator', 'shared', 'ring', 'radial'"),
        ({"waves": 0}, "^waves: expected a whole number 1 to 64, got 0"),
        ({"size": 0}, r"^size: expected a side or \(height, width\) in pixels, got \[0, 0\]"),
        ({"max_log_gain": math.nan}, "^max_log_gain: expected a number above 0, at most 12, got"),
    ):
        refuses(rule, FourierPrompt, **wrong)
    refuses(r"^images: expected 3 channels, got \(4, 2, 8, 10\)", make("ring"), photos()[:, :2])
    refuses(r"images: expected \(B, C, H, W\)", make("shared"), torch.rand(8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("form", FORMS)
def test_a_gpu_gives_the_same(form):
    prompt = make(form, scale=0.5, size=16)
    noise = torch.Generator().manual_seed(0)
    expected = prompt(photos(), noise)
    found = prompt.cuda()(photos().cuda(), noise.manual_seed(0)).cpu()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def ran(prompt, images):
    """Prompt with torch's global noise, as a pipeline does that passes no generator."""
    torch.manual_seed(5)
    with torch.no_grad():
        return prompt(images)


@pytest.mark.parametrize("form", FORMS)
def test_compiled_and_exported_it_gives_the_same_for_any_batch(form):
    prompt, more = make(form, scale=0.5, size=16).eval(), photos(count=7)
    compiled = torch.compile(prompt, backend="eager", fullgraph=True)
    torch.testing.assert_close(ran(compiled, photos()), ran(prompt, photos()))
    torch._dynamo.reset()
    batch = torch.export.Dim("batch", min=2, max=64)
    exported = torch.export.export(prompt, (photos(),), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(ran(exported.module(), more), ran(prompt, more))


def test_it_is_a_transform_of_torchvision():
    from torchvision.transforms import v2

    prompt = make("shared", scale=0.5, size=16).requires_grad_(False)
    pipeline = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), prompt])
    pixels = (255 * photos(16, 16)[0]).byte()
    found = pipeline(pixels.permute(1, 2, 0).numpy())
    assert found.shape == (3, 16, 16)
    torch.testing.assert_close(found, prompt(pixels[None] / 255)[0])


@pytest.mark.parametrize("form", ["generator", "shared"])
def test_gains_of_two_shares_are_those_of_the_batch(form):
    # Noise drawn by each share for itself moves a gain of the generator by 0.1 and more.
    prompt, images = make(form, scale=0.5, size=16), torch.rand(7, 3, 12, 12, generator=seeded())
    whole = prompt.gain(images, seeded())
    parts = [prompt.gain(images[a:b], seeded(), share=Share(a, b, 7)) for a, b in ((0, 3), (3, 7))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-4)
    alone = prompt.gain(images[3:], seeded())
    assert (float((alone - whole[3:]).detach().abs().max()) > 0.1) == (form == "generator")


def slow_resample(coarse, height, width):
    """Read a map bin by bin, in float64: bilinear, wrapping over the vertical frequency."""
    rows, columns = coarse.shape
    result = torch.empty(height, width // 2 + 1, dtype=torch.float64)
    for v in range(height):
        for u in range(width // 2 + 1):
            down, across = (v / height) % 1 * rows, u / width * 2 * (columns - 1)
            top, left = math.floor(down), min(math.floor(across), columns - 2)
            b, r = down - top, across - left
            corners = coarse[[top % rows, (top + 1) % rows], left : left + 2]
            result[v, u] = float([1 - b, b] @ corners.numpy() @ [1 - r, r])
    return result


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 9), sides, sides)
def test_resample_equals_the_loop(rows, height, width):
    coarse = torch.randn((rows, rows // 2 + 1), generator=seeded(), dtype=torch.float64)
    found = resample(coarse, height=height, width=width)
    torch.testing.assert_close(found, slow_resample(coarse, height, width), atol=1e-12, rtol=0)


def slow_sum(coefficients, height, width):
    """Every wave, direction and contrast, written with angles, in float64."""
    channels, waves, _ = coefficients.shape
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    octave = np.log(1 + 32 * np.hypot(down, across)) / np.log(1 + 32 * np.sqrt(0.5))
    angle = np.arctan2(down, across)
    angle[0, 0] = np.pi / 4  # where cos 2t is 0, as it is said to be at DC
    around = np.stack([np.ones_like(angle), np.cos(2 * angle), np.cos(4 * angle)])
    along = np.cos(np.pi * np.arange(waves)[:, None, None] * octave)
    mode = np.arange(channels)
    contrasts = np.cos(np.pi * (mode[:, None] + 0.5) * mode / channels)
    contrasts *= np.where(mode, np.sqrt(2), 1)
    terms = contrasts, coefficients.numpy(), along, around
    return torch.from_numpy(np.einsum("cm,mwd,whx,dhx->chx", *terms))


@pytest.mark.parametrize("size", [(4, 6), (5, 3)])
def test_sum_of_waves_equals_the_formula(size):
    coefficients = torch.randn((3, 4, 3), generator=seeded(), dtype=torch.float64)
    found = sum_of_waves(coefficients, height=size[0], width=size[1])
    torch.testing.assert_close(found, slow_sum(coefficients, *size), atol=1e-12, rtol=0)


PROMPT = "expected a Fourier prompt of version 1, got"
SAVED = "expected a saved Fourier prompt, got"
NUMBERS = "expected finite numbers up to 1e+06"


@pytest.mark.parametrize(
    ("settings", "state", "expected"),
    [
        (SETTINGS | {"code": 1}, CELLS, (SAVED, "settings or tensors that do not fit")),
        (SETTINGS | {"max_log_gain": 20.0}, CELLS, (SAVED, "max_log_gain: expected")),
        (SETTINGS, {"cells": torch.zeros(3, 3).long()}, (SAVED, "settings or tensors that")),
        *(
            (SETTINGS, {"cells": CELLS["cells"] + bad}, (NUMBERS, "copy it again"))
            for bad in (math.nan, math.inf, 1e20, 1j)
        ),
        ("version 9", CELLS, (PROMPT, "version 9")),
        (None, b"not a tensor file", ("expected a safetensors file", "")),
    ],
)
def test_other_files_and_parts_that_do_not_fit_together_are_refused(
    tmp_path, settings, state, expected
):
    path = tmp_path / "a"
    if isinstance(state, bytes):
        path.write_bytes(state)
    elif state is not None:
        version = "9" if isinstance(settings, str) else "1"
        metadata = {"fopro_lab.prompt": version, "settings": json.dumps(settings)}
        save_file(state, path, metadata=metadata if settings else None)
    told = complaint(FourierPrompt.load, path)
    assert told.startswith(f"{path}: {expected[0]}") and expected[1] in told


def test_a_prompt_whose_bytes_changed_is_refused_and_equal_ones_are_equal_files(tmp_path):
    prompt, contents = make("generator", scale=0.5, size=16), []
    for _ in range(5):
        prompt.save(tmp_path / "a")
        contents.append((tmp_path / "a").read_bytes())
    assert len(set(contents)) == 1
    number = bytearray(contents[0])
    number[-6] ^= 1
    other = contents[0].replace(b'max_log_gain\\": 0.7', b'max_log_gain\\": 0.3')
    for changed in (number, other, number.replace(b"sha256", b"sha257")):
        assert changed != contents[0]
        (tmp_path / "a").write_bytes(changed)
        refuses("as they were saved, got others", FourierPrompt.load, tmp_path / "a")
