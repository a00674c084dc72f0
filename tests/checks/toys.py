"""Images with details, written with a CSV that gives their parts."""

from pathlib import Path

import numpy as np
from PIL import Image


def texture(seed: int, *, side: int = 64) -> np.ndarray:
    """Draw an image with energy at all frequencies, no two alike."""
    rng = np.random.default_rng(seed)
    total = np.zeros((side, side, 3))
    for cells in (4, 8, 16, 32):
        noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC))
    return (total / 4).astype(np.uint8)


def write_archive(root: Path, rows: list[tuple[str, str, str, str]], **images: np.ndarray) -> Path:
    """Write a CSV of (image, class, lesion, split) and its images, textures unless given."""
    root.mkdir(parents=True, exist_ok=True)
    for number, (image, *_) in enumerate(rows):
        pixels = images.get(image, texture(number))
        Image.fromarray(pixels).save(root / f"{image}.png")
    lines = ["image,dx,lesion_id,split", *(",".join(row) for row in rows)]
    (root / "labels.csv").write_text("\n".join(lines))
    return root


def sound_rows(*, each: int = 4) -> list[tuple[str, str, str, str]]:
    """List two classes with images in all parts, two images of a lesion."""
    return [
        (f"{name}{part}{number}", name, f"{name}{part}{number // 2}", part)
        for name in ("nv", "mel")
        for part in ("train", "val", "test")
        for number in range(each)
    ]
