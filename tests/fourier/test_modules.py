"""A prompt is an ordinary module: copied, moved, compiled, exported, put among transforms."""

import contextlib
import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from fopro_lab.fourier import FourierPrompt

FORMS = ["generator", "shared", "ring", "radial", "image"]


def moved(form):
    prompt = FourierPrompt(form, size=16, rows=6, rings=3, noise=4)
    source = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in prompt.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=source)
    return prompt


def photos(count=4, side=16):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def ran(prompt, images):
    """Prompt with torch's global noise, as a pipeline does that passes no generator."""
    torch.manual_seed(5)
    with torch.no_grad():
        return prompt(images)


@pytest.mark.parametrize("form", FORMS)
def test_a_copy_is_whole_and_its_own(form):
    prompt = moved(form)
    prompt.observe(photos())
    other = copy.deepcopy(prompt)
    assert ran(other, photos()).equal(ran(prompt, photos()))
    other.shrink_(0.0)
    assert not ran(other, photos()).equal(ran(prompt, photos()))


@pytest.mark.parametrize("form", FORMS)
def test_the_state_dict_holds_all_that_acts(form):
    prompt, other = moved(form), FourierPrompt(form, size=16, rows=6, rings=3, noise=4)
    prompt.observe(photos())
    other.load_state_dict(prompt.state_dict())
    assert ran(other, photos()).equal(ran(prompt, photos()))


@pytest.mark.parametrize("form", FORMS)
def test_it_moves_as_a_whole(form, monkeypatch):
    # The device 'meta' holds no values: anything left behind on the CPU would fail. It alone knows
    # no autocast.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    prompt = moved(form).to("meta")
    assert prompt(torch.rand(2, 3, 16, 16, device="meta")).device.type == "meta"
    assert {value.device.type for value in prompt.state_dict().values()} == {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("form", FORMS)
def test_a_gpu_gives_the_same(form):
    prompt = moved(form)
    noise = torch.Generator().manual_seed(0)
    expected = prompt(photos(), noise)
    found = prompt.cuda()(photos().cuda(), noise.manual_seed(0)).cpu()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_it_stands_among_other_modules(form):
    prompt = moved(form)
    network = nn.Sequential(prompt, nn.Conv2d(3, 1, 3)).half().float()
    assert network(photos()).shape == (4, 1, 14, 14)
    assert all(not value.requires_grad for value in network.requires_grad_(False).parameters())


@pytest.mark.parametrize("form", FORMS)
def test_compiled_it_gives_the_same(form):
    prompt = moved(form)
    compiled = torch.compile(prompt, backend="eager", fullgraph=True)
    torch.testing.assert_close(ran(compiled, photos()), ran(prompt, photos()))
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # inductor leaves complex numbers to eager code
@pytest.mark.parametrize("form", ["shared", "image"])
def test_compiled_in_earnest_it_learns_the_same(form):
    grads = []
    for compile_it in (False, True):
        prompt = moved(form)
        run = torch.compile(prompt) if compile_it else prompt
        run(photos()).square().mean().backward()
        grads.append([parameter.grad for parameter in prompt.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    torch._dynamo.reset()


@pytest.mark.parametrize("form", FORMS)
def test_exported_it_gives_the_same_for_any_batch(form):
    prompt = moved(form).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    exported = torch.export.export(prompt, (photos(),), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(ran(exported.module(), photos(7)), ran(prompt, photos(7)))


def test_it_is_a_transform_of_torchvision():
    from torchvision.transforms import v2

    prompt = moved("shared").requires_grad_(False)
    pipeline = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), prompt])
    pixels = (255 * photos(1)[0]).byte()
    found = pipeline(pixels.permute(1, 2, 0).numpy())
    assert found.shape == (3, 16, 16)
    torch.testing.assert_close(found, prompt(pixels[None] / 255)[0])


def test_the_room_needs_nothing_but_torch():
    # Everything that importing, prompting and learning load is torch's or the standard library's.
    code = """
import sys, torch
known = {name.partition(".")[0] for name in sys.modules} | set(sys.stdlib_module_names)
known |= {"sympy", "mpmath"}  # torch's own, loaded late
from fopro_lab.fourier import FourierPrompt, apply_gain
FourierPrompt("image")(torch.rand(1, 3, 8, 8)).sum().backward()
new = {name.partition(".")[0] for name in sys.modules} - known
assert new == {"fopro_lab"}, new
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
