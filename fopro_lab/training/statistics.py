"""What a teacher expects of natural images: channel statistics inside it, and their source."""

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from fopro_lab.config import TrainConfig
from fopro_lab.data.decoding import resize_square
from fopro_lab.errors import InputError
from fopro_lab.fourier import apply_gain, mean_amplitude, ring_energy, ring_gain
from fopro_lab.fourier.rings import at_least_single
from fopro_lab.io import in_bytes
from fopro_lab.models import Teacher

STORED = files("fopro_lab.models") / "builtin" / "natural.safetensors"  # made by tools/
LEAVES = 600  # enough to cover every pixel many times over
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MOST_BYTES = 1 << 30  # of a file in a zip, unpacked
IMAGES, BATCH = 128, 32  # natural images shown to a teacher that kept no statistics of them
# Added to a layer's variances, in units of their mean: a channel that natural images hardly move
# would otherwise decide alone.
FLOOR = 1e-3


class Moments(NamedTuple):
    """Mean and variance of each channel of one layer, ``(C,)`` each."""

    mean: Tensor
    variance: Tensor


@dataclass(frozen=True, eq=False)
class Reference:
    """What a teacher expects of every channel at the input of some layers.

    Given as a layer, the body of the teacher means its features.
    """

    source: str  # what it was measured on, for cards
    layers: tuple[nn.Module, ...]
    expected: tuple[Moments, ...]
    floors: tuple[Tensor | float, ...]  # added to the variances of each layer

    def distance(self, measured: Mapping[nn.Module, list[Moments]]) -> Tensor:
        """Distance of a batch's channel statistics from what is expected, 0 or more.

        Per channel the squared 2-Wasserstein distance of two normal distributions in units of the
        expected variance, ``(m - M)^2 / V + (sqrt(v / V) - 1)^2``; mean over channels, then layers.
        ``measured`` is from `watched`, after one ``encode``.

        Source: DeepInversion's feature prior (Yin et al., CVPR 2020, eq. 4), normalised per channel
            so that no wide or deep layer decides alone.
        """
        distances = []
        for layer, expected, floor in zip(self.layers, self.expected, self.floors, strict=True):
            if not measured[layer]:  # of an auxiliary head that evaluation leaves out
                continue
            found = _pooled(measured[layer])
            scale = expected.variance + floor
            # The floor is in both roots: a dead channel has no spread, and a finite gradient.
            spread = ((found.variance + floor) / scale).sqrt() - 1
            distances.append(((found.mean - expected.mean) ** 2 / scale + spread**2).mean())
        return torch.stack(distances).mean()


@contextmanager
def watched(
    teacher: Teacher, layers: tuple[nn.Module, ...], *, per_image: bool = False
) -> Iterator[dict[nn.Module, list[Moments]]]:
    """Collect the moments of what goes into some layers while a teacher encodes one batch.

    Yields layer to moments, one entry for each time that ``encode`` uses it; ``per_image`` they are
    ``(B, C)``, and `Reference.distance` the mean over the images.
    """
    measured: dict[nn.Module, list[Moments]] = {layer: [] for layer in layers}

    def before(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # Channels are first in maps, last in tokens.
        maps = isinstance(layer, nn.BatchNorm2d) or type(layer).__name__.endswith("2d")
        measured[layer].append(_moments(inputs[0], 1 if maps else -1, per_image))

    def after(layer: nn.Module, _: tuple[Tensor, ...], features: Tensor) -> None:
        measured[layer].append(_moments(features, 1, per_image))

    with ExitStack() as hooks:
        for layer in layers:
            if layer is teacher.body:
                hooks.enter_context(layer.register_forward_hook(after))
            else:
                hooks.enter_context(layer.register_forward_pre_hook(before))
        yield measured


def _moments(values: Tensor, axis: int, per_image: bool) -> Moments:
    values = at_least_single(values)
    others = [other for other in range(per_image, values.ndim) if other != axis % values.ndim]
    if not others:  # one vector per image
        return Moments(values, torch.zeros_like(values))
    return Moments(*_MeanAndVariance.apply(values, others))


class _MeanAndVariance(torch.autograd.Function):
    """Mean and variance over some dimensions; `torch.var_mean` takes several times as long."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
        mean = values.mean(dims, keepdim=True)
        variance = (values - mean).square_().mean(dims)
        ctx.save_for_backward(values, mean)
        return mean.squeeze(dims), variance

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        values, mean = ctx.saved_tensors
        count = values.numel() / mean.numel()
        of_mean, of_variance = (slope.reshape(mean.shape) / count for slope in slopes)
        return torch.addcmul(of_mean - 2 * of_variance * mean, values, 2 * of_variance), None


def reference_of(teacher: Teacher, *, natural: str = "", size: int = 64) -> Reference:
    """Find what a teacher expects of natural images; `source` belongs beside every distance.

    Batch norms kept it while the teacher was trained. A teacher without them (a ViT) is shown
    natural images, those of ``natural`` (folder or zip) or generated ones, ``size`` px as those
    which will be compared, and the statistics of the tokens before each layer norm are taken, or
    of its features where it has no such layer either.
    """
    norms = teacher.batch_norms()
    if norms:
        kept = [(norm.running_mean, norm.running_var) for norm in norms]
        expected = tuple(Moments(m, v) for m, v in kept if m is not None and v is not None)
        source = f"running statistics of its {len(norms)} batch norms"
        return Reference(source, tuple(norms), expected, tuple(norm.eps for norm in norms))
    layers: tuple[nn.Module, ...] = tuple(teacher.layer_norms()) or (teacher.body,)
    images, origin = natural_images(IMAGES, size=size, folder=natural)
    with torch.no_grad(), watched(teacher, layers) as measured:
        for batch in images.to(teacher.mean.device).split(BATCH):
            teacher.encode(batch)
    layers = tuple(layer for layer in layers if measured[layer])
    expected = tuple(_pooled(measured[layer]) for layer in layers)
    where = f"inputs of its {len(layers)} layer norms" if teacher.layer_norms() else "its features"
    floors = tuple(FLOOR * moments.variance.mean() for moments in expected)
    return Reference(f"{where} on {origin}", layers, expected, floors)


def _pooled(parts: list[Moments]) -> Moments:
    """Moments of the whole, from those of equally large parts."""
    if len(parts) == 1:
        return parts[0]
    means = torch.stack([part.mean for part in parts])
    inner = torch.stack([part.variance for part in parts]).mean(dim=0)
    return Moments(means.mean(dim=0), inner + means.var(dim=0, correction=0))


@torch.no_grad()
def natural_distance(
    teacher: Teacher, images: Tensor, *, reference: Reference | None = None
) -> float:
    """Measure how far images are from what the teacher expects of natural ones.

    They are ``(B, 3, H, W)``, all in one batch; ``reference`` is that of `reference_of`.
    """
    images = images.to(teacher.mean.device)
    reference = reference or reference_of(teacher, size=images.shape[-1])
    with watched(teacher, reference.layers) as measured:
        teacher.encode(images)
    return float(reference.distance(measured))


def reference_spectrum(config: TrainConfig) -> tuple[Tensor, str]:
    """Measure the mean amplitude ``(24,)`` that the objective ``spectrum`` aims at, and its source.

    It is that of the images in ``config.reference``, else of natural ones, see `natural_images`.
    """
    folder = config.reference or config.natural
    images, source = natural_images(IMAGES, size=config.image_size, folder=folder)
    return mean_amplitude(images), source.replace("natural images of", "images of")


def natural_images(count: int, *, size: int, folder: str = "") -> tuple[Tensor, str]:
    """Read ``count`` natural images of a folder or zip at even distances, or generate some.

    They are ``(N, 3, size, size)`` in [0, 1]; beside them is said what they are, for cards.
    """
    if not folder:
        how = "with the stored colours and spectrum of natural ones, no photographs"
        return generated_images(count, size=size), f"{count} generated images of {size} px {how}"
    path, stacked, enlarged = Path(folder).expanduser(), [], 0
    for name, content in _image_files(path, count):
        try:
            image = Image.open(io.BytesIO(content)).convert("RGB")
        except Exception as error:  # as in `read_image`
            raise InputError(f"natural: {name}: expected an image, got {error}") from None
        side = min(image.size)
        enlarged += side < size
        left, top = (image.width - side) // 2, (image.height - side) // 2
        pixels = np.asarray(image)[top : top + side, left : left + side]
        stacked.append(resize_square(pixels, size=size, interpolation="bilinear"))
    stack = torch.from_numpy(np.stack(stacked)).permute(0, 3, 1, 2).float() / 255
    note = f", {enlarged} of them enlarged, so without their top frequencies" if enlarged else ""
    return stack, f"{len(stack)} natural images of {path.name} at {size} px{note}"


def _image_files(path: Path, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of some images of a folder or zip, at even distances."""
    if path.is_dir():
        root: Path | zipfile.Path = path
        found = [str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()]
    elif path.is_file() and zipfile.is_zipfile(path):
        archive = zipfile.ZipFile(path)
        if max((each.file_size for each in archive.infolist()), default=0) > MOST_BYTES:
            rule = f"expected images of up to {in_bytes(MOST_BYTES)} each"
            raise InputError(f"natural: {path}: {rule}")
        root, found = zipfile.Path(archive), archive.namelist()
    else:
        raise InputError(f"natural: expected a folder or a zip of images, got '{path}'")
    names = sorted(name for name in found if name.lower().endswith(SUFFIXES))
    if len(names) < 2:
        raise InputError(f"natural: expected two or more images in {path}, got {len(names)}")
    for place in np.linspace(0, len(names) - 1, min(count, len(names)), dtype=int):
        yield names[place], (root / names[place]).read_bytes()


def hash_natural(folder: str) -> str:
    """Hash those natural images of a folder or zip that `reference_of` would read."""
    found = _image_files(Path(folder).expanduser(), IMAGES)
    parts = [name.encode() + hashlib.sha256(content).digest() for name, content in found]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def generated_images(count: int, *, size: int, seed: int = 0) -> Tensor:
    """Throw leaves on each other and give them the stored colours and spectrum.

    Source: dead leaves (Lee, Mumford, Huang, IJCV 2001), radii with density ``r^-3``.
    """
    with as_file(STORED) as path:
        stored = load_file(path)
    random = np.random.default_rng(seed)
    mean, between, within = (stored[k].double().numpy() for k in ("mean", "between", "within"))
    colours = random.multivariate_normal(mean, between, (count, 1))
    colours = colours + random.multivariate_normal(np.zeros(3), within, (count, LEAVES))
    drawn = np.stack([_leaves(own, size=size, random=random) for own in colours])
    images = torch.from_numpy(drawn).float()
    edges = [float(edge) for edge in stored["edges"]]
    energy = ring_energy(images, edges).mean(dim=0)
    gain = (stored["energy"] / energy.clamp(min=1e-12)).sqrt()
    gain = torch.where(energy > 1e-12, gain, torch.ones_like(gain))
    return apply_gain(images, ring_gain(gain, edges, height=size, width=size)).clamp(0, 1)


def _leaves(colours: np.ndarray, *, size: int, random: np.random.Generator) -> np.ndarray:
    """Draw discs of the given colours on each other, ``(3, size, size)``."""
    canvas = np.tile(colours[0][:, None, None], (1, size, size))
    largest, share = size / 2, random.random(len(colours))
    # Inverse of the distribution function of the density r^-3 between 1 and the largest.
    radii = (1 - share * (1 - largest**-2)) ** -0.5
    ground = len(radii) // 10
    radii[:ground] = largest * random.uniform(0.3, 1, ground)
    centres = random.uniform(0, size, (len(colours), 2))
    for colour, radius, (down, across) in zip(colours, radii, centres, strict=True):
        top, left = max(0, int(down - radius)), max(0, int(across - radius))
        rows = np.arange(top, min(size, int(down + radius) + 2))[:, None]
        columns = np.arange(left, min(size, int(across + radius) + 2))
        inside = (rows - down) ** 2 + (columns - across) ** 2 <= radius**2
        canvas[:, top : top + len(rows), left : left + len(columns)][:, inside] = colour[:, None]
    return canvas
