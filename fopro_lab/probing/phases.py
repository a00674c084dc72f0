"""Pictures that keep only their phases or only their amplitudes, and who still reads them.

Three reconstructions, of each channel on its own; DC is always the picture's own, so brightness
and colour stay, and nothing is clipped:

- ``phase``: the picture's phases with the mean amplitude of the training pictures at each
  frequency. What is special in a picture's amplitudes is gone, its contours are not.
- ``phase-flat``: the picture's phases with one amplitude at all frequencies, scaled so that the
  variance stays: the phase-only picture of Oppenheim & Lim. It whitens, so it looks like edges.
- ``amplitude``: the picture's amplitudes with the phases of white noise, the same noise in all
  channels. Spectrum and texture strength stay, every contour is gone.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.data import Pack, Split, batches
from fopro_lab.errors import ShapeError
from fopro_lab.probing.asking import ask_changed
from fopro_lab.probing.changes import check_groups
from fopro_lab.probing.features import Encoder
from fopro_lab.probing.pictures import draw_per_class
from fopro_lab.probing.probe import LinearProbe
from fopro_lab.probing.readers import Classifier, Reader, reader_of

KINDS = ("phase", "phase-flat", "amplitude")


def phase_and_amplitude(
    asked: Encoder | Reader | Classifier,
    pack: Pack,
    split: Split,
    *,
    groups: Mapping[str, str],
    probe: LinearProbe | None = None,
    per_class: int = 0,
    batch_size: int = 64,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure recall on test pictures that keep only their phases or only their amplitudes.

    Args:
        asked: As in `class_band_matrix`.
        pack: The pictures, with their data set.
        split: As in `class_band_matrix`; its train rows also give the mean amplitude.
        groups: "head", "medium" or "tail" for each class.
        probe: A probe of this teacher and split, if there is one already.
        per_class: At most this many test pictures of a class; 0 is all.
        batch_size: Pictures a pass.
        resamples: Bootstrap resamples.
        seed: Seed of the drawn pictures, of the noise and of the bootstrap.
        progress: Say how far it is.

    Returns:
        A row for each class, group and "overall", and each ``kind``: ``reader``, ``scope``,
        ``name``, ``group``, ``kind``, then as `measure_changes`, and ``protocol``.

    Raises:
        InputError: If the groups are wrong.

    Example:
        >>> from fopro_lab.data import open_dataset, make_split, pack
        >>> packed = pack(open_dataset("phantom", pictures=60), 16, progress=False)
        >>> groups = dict.fromkeys(packed.dataset.class_names, "head")
        >>> table = phase_and_amplitude(lambda x: x.mean(dim=(2, 3)), packed,
        ...     make_split(packed.dataset), groups=groups, resamples=20, progress=False)
        >>> (table["change"] == 0).all()  # mean colours are DC, which stays
        np.True_
    """
    check_groups(groups, pack.dataset.class_names)
    reader = reader_of(asked, pack, split, probe=probe, batch_size=batch_size)
    rows = draw_per_class(split.test, pack.labels[split.test], per_class=per_class, seed=seed)
    mean = mean_amplitude(pack, split.train).to(reader.device)
    generator = torch.Generator().manual_seed(seed)

    def rebuild(images: Tensor) -> Iterator[Tensor]:
        yield phase_only(images, mean)
        yield phase_only(images)
        yield amplitude_only(images, generator)

    cases = pd.DataFrame({"kind": KINDS})
    return ask_changed(
        reader, pack, rows, rebuild, cases=cases, split=split, groups=groups,
        label="phase and amplitude", batch_size=batch_size, resamples=resamples,
        seed=seed, progress=progress,
    )  # fmt: skip


def phase_only(images: Tensor, amplitude: Tensor | None = None) -> Tensor:
    """Keep the phases of pictures and give them other amplitudes.

    Args:
        images: ``(B, C, H, W)``, single or double precision.
        amplitude: ``(C, H, W // 2 + 1)`` of an unnormalised ``rfft2``, 0 or above; None takes one
            for all frequencies of a picture, so that each channel keeps its variance.

    Returns:
        ``(B, C, H, W)``; DC is the picture's own. A frequency that a picture does not have has
        no phase and stays away.

    Raises:
        ShapeError: If ``amplitude`` does not fit.

    Source: Oppenheim & Lim, Proc. IEEE 69 (1981) 529; with a mean amplitude: Piotrowski &
        Campbell, Perception 11 (1982) 337.

    Example:
        >>> x = torch.rand(1, 3, 8, 8)
        >>> flat = phase_only(x)
        >>> torch.allclose(flat.var(dim=(2, 3)), x.var(dim=(2, 3)), rtol=1e-4)
        True
    """
    height, width = images.shape[-2:]
    spectrum = torch.fft.rfft2(images)
    if amplitude is not None and amplitude.shape != spectrum.shape[1:]:
        raise ShapeError(
            f"amplitude: expected {tuple(spectrum.shape[1:])}, got {tuple(amplitude.shape)}"
        )
    size = spectrum.abs()
    phase = torch.where(size > _floor(size), spectrum / size.clamp(min=1e-30), 0)
    phase[..., 0, 0] = 0
    rebuilt = torch.fft.irfft2(phase if amplitude is None else phase * amplitude, s=(height, width))
    if amplitude is None:
        spread = rebuilt.std(dim=(2, 3), keepdim=True).clamp(min=1e-30)
        rebuilt = rebuilt * (images.std(dim=(2, 3), keepdim=True) / spread)
    return rebuilt + images.mean(dim=(2, 3), keepdim=True)


def amplitude_only(images: Tensor, generator: torch.Generator) -> Tensor:
    """Keep the amplitudes of pictures and give them the phases of white noise.

    Args:
        images: ``(B, C, H, W)``, single or double precision.
        generator: Draws the noise, on the CPU, picture by picture: batches of another size make
            no difference. All channels of a picture share it.

    Returns:
        ``(B, C, H, W)``; DC is the picture's own.

    Example:
        >>> x = torch.rand(1, 3, 8, 8)
        >>> other = amplitude_only(x, torch.Generator().manual_seed(0))
        >>> torch.allclose(torch.fft.rfft2(other).abs(), torch.fft.rfft2(x).abs(), atol=1e-4)
        True
    """
    height, width = images.shape[-2:]
    noise = torch.stack([torch.randn(height, width, generator=generator) for _ in images])
    theirs = torch.fft.rfft2(noise.to(images))[:, None]
    spectrum = torch.fft.rfft2(images)
    mixed = spectrum.abs() * (theirs / theirs.abs().clamp(min=1e-30))
    mixed[..., 0, 0] = spectrum[..., 0, 0]
    return torch.fft.irfft2(mixed, s=(height, width))


def mean_amplitude(pack: Pack, rows: np.ndarray, *, batch_size: int = 256) -> Tensor:
    """Average the amplitude of each frequency over some pictures.

    Args:
        pack: The pictures.
        rows: Which, at least one.
        batch_size: Pictures a transform.

    Returns:
        ``(3, H, W // 2 + 1)``, single precision, of an unnormalised ``rfft2``.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", pictures=24), 16, progress=False)
        >>> mean_amplitude(packed, np.arange(24)).shape
        torch.Size([3, 16, 9])
    """
    total = sum(
        torch.fft.rfft2(images).abs().sum(dim=0, dtype=torch.float64)
        for images, _ in batches(pack, rows, batch_size=batch_size)
    )
    assert isinstance(total, Tensor)
    return (total / len(rows)).float()


def _floor(size: Tensor) -> Tensor:
    """Return what counts as no amplitude: rounding of the transform of this picture."""
    return 1e-6 * size.amax(dim=(-2, -1), keepdim=True)
