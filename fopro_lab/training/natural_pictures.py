"""Pictures that stand for natural ones where a teacher kept no statistics: given, or generated.

No photograph lies in the package. Stored are the colours and the spectrum of natural pictures, as
numbers; from them leaves are thrown on each other until nothing shines through, which gives what
natural pictures have in common: edges, surfaces of all sizes and a spectrum that falls with
frequency. They hold no objects. Whoever has photographs should give them.
"""

import io
import zipfile
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from fopro_lab.data.decoding import resize_square
from fopro_lab.errors import InputError
from fopro_lab.fourier import apply_gain, ring_energy, ring_gain

STORED = files("fopro_lab.models") / "builtin" / "natural.safetensors"
RINGS = 16  # of the stored spectrum, up to 0.5 cycles per pixel
LEAVES = 600  # cover every pixel many times over
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def natural_pictures(count: int, *, size: int, folder: str = "") -> tuple[Tensor, str]:
    """Read or generate pictures that stand for natural ones.

    Args:
        count: How many, at most.
        size: Side, pixels.
        folder: Folder or zip, searched for pictures in all its subfolders, ``count`` taken at even
            distances; empty generates them.

    Returns:
        ``(N, 3, size, size)`` in [0, 1], and what they are, for cards.

    Raises:
        InputError: If the folder or zip holds fewer than two pictures, or one is damaged.

    Example:
        >>> images, source = natural_pictures(4, size=32)
        >>> images.shape, source[:20]
        (torch.Size([4, 3, 32, 32]), '4 generated pictures')
    """
    if not folder:
        images = generated_pictures(count, size=size)
        return images, (
            f"{count} generated pictures of {size} px with the stored colours and spectrum of "
            "natural ones, no photographs"
        )
    path = Path(folder).expanduser()
    names = _names(path)
    chosen = [
        names[place] for place in np.linspace(0, len(names) - 1, min(count, len(names)), dtype=int)
    ]
    pictures, enlarged = [], 0
    for name, content in _contents(path, chosen):
        try:
            picture = Image.open(io.BytesIO(content)).convert("RGB")
        except OSError as error:
            raise InputError(f"natural: {name}: expected a picture, got {error}") from None
        enlarged += min(picture.size) < size
        pixels = _centre(np.asarray(picture))
        pictures.append(resize_square(pixels, size=size, interpolation="bilinear"))
    stack = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    note = f", {enlarged} of them enlarged, so without their top frequencies" if enlarged else ""
    return stack, f"{len(stack)} natural pictures of {path.name} at {size} px{note}"


def generated_pictures(count: int, *, size: int, seed: int = 0) -> Tensor:
    """Throw leaves on each other and give them the stored colours and spectrum.

    Args:
        count: How many.
        size: Side, pixels.
        seed: Another seed, other pictures.

    Returns:
        ``(count, 3, size, size)`` in [0, 1].

    Source: dead leaves (Lee, Mumford, Huang, IJCV 2001), radii with density ``r^-3``.

    Example:
        >>> pictures = generated_pictures(2, size=16)
        >>> pictures.shape, bool(((pictures >= 0) & (pictures <= 1)).all())
        (torch.Size([2, 3, 16, 16]), True)
    """
    with as_file(STORED) as path:
        stored = load_file(path)
    random = np.random.default_rng(seed)
    mean = stored["mean"].double().numpy()
    between = random.multivariate_normal(mean, stored["between"].double().numpy(), count)
    within = random.multivariate_normal(
        np.zeros(3), stored["within"].double().numpy(), (count, LEAVES)
    )
    drawn = np.stack([
        _leaves(middle + colours, size=size, random=random)
        for middle, colours in zip(between, within, strict=True)
    ])  # fmt: skip
    images = torch.from_numpy(drawn).float()
    edges = [float(edge) for edge in stored["edges"]]
    energy = ring_energy(images, edges).mean(dim=0)
    gain = (stored["energy"] / energy.clamp(min=1e-12)).sqrt()
    gain = torch.where(energy > 1e-12, gain, torch.ones_like(gain))
    return apply_gain(images, ring_gain(gain, edges, height=size, width=size)).clamp(0, 1)


def measure_natural(images: Tensor) -> dict[str, Tensor]:
    """Measure what is stored: colours between and within pictures, and energy by ring.

    Args:
        images: Natural pictures, ``(N, 3, S, S)`` in [0, 1].

    Returns:
        ``mean (3,)``, ``between`` and ``within`` ``(3, 3)``, ``energy (3, rings)``, ``edges``.

    Example:
        >>> sorted(measure_natural(torch.rand(4, 3, 32, 32)))
        ['between', 'edges', 'energy', 'mean', 'within']
    """
    means = images.mean(dim=(2, 3))
    rest = (images - means[:, :, None, None]).permute(1, 0, 2, 3).flatten(1)
    edges = [0.5 * ring / RINGS for ring in range(RINGS + 1)] + [0.75]
    return {
        "mean": means.mean(dim=0),
        "between": torch.cov(means.T),
        "within": torch.cov(rest),
        "energy": ring_energy(images, edges).mean(dim=0),
        "edges": torch.tensor(edges),
    }


def _leaves(colours: np.ndarray, *, size: int, random: np.random.Generator) -> np.ndarray:
    """Draw discs of the given colours on each other, ``(3, size, size)``."""
    canvas = np.empty((3, size, size))
    canvas[:] = colours[0][:, None, None]
    smallest, largest = 1.0, size / 2
    # inverse of the distribution function of the density r^-3 between the two
    share = random.random(len(colours))
    radii = (smallest**-2 - share * (smallest**-2 - largest**-2)) ** -0.5
    radii[: len(radii) // 10] = largest * random.uniform(0.3, 1, len(radii) // 10)  # the ground
    centres = random.uniform(0, size, (len(colours), 2))
    for colour, radius, (down, across) in zip(colours, radii, centres, strict=True):
        top, left = max(0, int(down - radius)), max(0, int(across - radius))
        rows = np.arange(top, min(size, int(down + radius) + 2))[:, None]
        columns = np.arange(left, min(size, int(across + radius) + 2))
        inside = (rows - down) ** 2 + (columns - across) ** 2 <= radius**2
        part = canvas[:, top : top + len(rows), left : left + len(columns)]
        part[:, inside] = colour[:, None]
    return canvas


def _names(path: Path) -> list[str]:
    if path.is_dir():
        found = [str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()]
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found = archive.namelist()
    else:
        raise InputError(f"natural: expected a folder or a zip of pictures, got '{path}'")
    names = sorted(name for name in found if name.lower().endswith(SUFFIXES))
    if len(names) < 2:
        raise InputError(f"natural: expected two or more pictures in {path}, got {len(names)}")
    return names


def _contents(path: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for name in names:
            yield name, (path / name).read_bytes()
        return
    with zipfile.ZipFile(path) as archive:
        for name in names:
            yield name, archive.read(name)


def _centre(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]
