"""Gains on amplitudes and ring responses, each against its plain alternative."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmarks.timing import Variant, compare
from fopro_lab.fourier import apply_gain, ring_edges
from fopro_lab.models import Teacher, load_teacher, wrap_teacher
from fopro_lab.models.backbones import IMAGENET_MEAN, IMAGENET_STD
from fopro_lab.probing import ring_drifts

RINGS = 8


def bench_fourier(
    *, rounds: int = 5, size: int = 224, batch: int = 32, devices: tuple[str, ...] = ()
) -> dict[str, pd.DataFrame]:
    """Measure gains and ring responses on one core, and on a GPU where there is one.

    Args:
        rounds: Rounds that count.
        size: Side of the images of gains, pixels; the built-in teacher sees 64 at most.
        batch: Images.
        devices: Where; empty is the CPU and, if there is one, the GPU.

    Returns:
        Tables of `compare`: ``gain`` (forward), ``gain_backward`` (with the gradient of images
        and gain), and ``rings``; those of a GPU have a name ending in ``_cuda``.
    """
    tables = {}
    for device in devices or (("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)):
        end = "" if device == "cpu" else f"_{device}"
        noise = torch.Generator().manual_seed(0)
        images = torch.rand(batch, 3, size, size, generator=noise).to(device)
        gain = (0.5 + torch.rand(batch, 3, size, size // 2 + 1, generator=noise)).to(device)
        for key, back in (("gain", False), ("gain_backward", True)):
            tables[key + end] = compare(gain_variants(images, gain, back), rounds=rounds, label=key)
        teacher = load_teacher("builtin").to(device)
        seen = images[..., :64, :64].contiguous()
        tables["rings" + end] = compare(ring_variants(teacher, seen), rounds=rounds, label="rings")
    return tables


def scale_by_parts(images: Tensor, gain: Tensor) -> Tensor:
    """Scale amplitudes as one would first write it: take modulus and angle, put them back.

    Args:
        images: ``(B, C, H, W)``.
        gain: Of the whole spectrum, ``(B, C, H, W)``.

    Returns:
        ``(B, C, H, W)``; the gradient is NaN where an amplitude is 0.
    """
    spectrum = torch.fft.fft2(images)
    return torch.fft.ifft2(torch.polar(spectrum.abs() * gain, spectrum.angle())).real


def there_and_back(images: Tensor, gain: Tensor) -> Tensor:
    """Two bare FFTs, the least that any gain costs; the gain is not used."""
    return torch.fft.irfft2(torch.fft.rfft2(images), s=images.shape[-2:]) + 0 * gain.sum()


def whole_gain(gain: Tensor, *, width: int) -> Tensor:
    """Mirror a gain of the half spectrum ``(..., H, W // 2 + 1)`` into the whole one."""
    rows = -torch.arange(gain.shape[-2], device=gain.device) % gain.shape[-2]
    columns = torch.arange((width - 1) // 2, 0, -1, device=gain.device)
    return torch.cat([gain, gain[..., rows, :][..., columns]], dim=-1)


def gain_variants(images: Tensor, gain: Tensor, backward: bool) -> list[Variant]:
    """Lay out the ways to scale amplitudes, with or without the way back."""
    whole = whole_gain(gain, width=images.shape[-1])
    return [
        Variant(
            "fft2, abs and angle, polar, ifft2", _work(scale_by_parts, images, whole, backward)
        ),
        Variant("apply_gain", _work(apply_gain, images, gain, backward), 5.0),
        Variant("rfft2 and irfft2, bare", _work(there_and_back, images, gain, backward)),
    ]


def _work(
    scale: Callable[[Tensor, Tensor], Tensor], images: Tensor, gain: Tensor, backward: bool
) -> Callable[[], int]:
    images, gain = (x.detach().requires_grad_(backward) for x in (images, gain))
    above = torch.ones_like(images)

    def run() -> int:
        out = scale(images, gain)
        if backward:
            torch.autograd.grad(out, [images, gain], above)
        return len(images)

    return run


def ring_variants(teacher: Teacher, images: Tensor) -> list[Variant]:
    """The response to 8 rings, against the 9 passes of the teacher that it needs at least."""

    def passes() -> int:
        with torch.inference_mode():
            for _ in range(RINGS + 1):
                teacher.encode(images)
        return len(images)

    return [
        Variant(f"{RINGS + 1} passes of the teacher", passes),
        Variant(f"ring_drifts over {RINGS} rings", _drifts(teacher, images), 1 / 1.1),
    ]


def _drifts(teacher: Teacher, images: Tensor) -> Callable[[], int]:
    edges = ring_edges(RINGS)[:-1]  # without the corners

    def run() -> int:
        ring_drifts(teacher, images, edges, [0.0], batch_size=len(images))
        return len(images)

    return run


def random_resnet50(size: int) -> Teacher:
    """Make a teacher of the published size; its weights are random, its cost is not.

    Args:
        size: Side of the images that it sees, pixels.
    """
    from torchvision.models import resnet50  # late: the import costs seconds

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = resnet50(weights=None)
    network.fc = torch.nn.Identity()
    options: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "input_size": size}
    return wrap_teacher(network, feature_dim=2048, name="resnet50, random weights", **options)
