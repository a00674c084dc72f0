"""Draw docs/pictures/prompt.png: what a Fourier prompt does to an image.

``python -m tools.concept_pictures`` writes it; nothing in it is drawn by hand.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from fopro_lab import plots
from fopro_lab.config import TrainConfig
from fopro_lab.data import batches, prepare
from fopro_lab.fourier import apply_gain, radial_frequency
from fopro_lab.plots import style

OUT = Path("docs/pictures/prompt.png")
SIZE, BANDS = 128, {"0.01 to 0.06": (0.01, 0.06), "0.12 to 0.3": (0.12, 0.3)}  # cycles per pixel


@style.with_style
def draw() -> None:
    """Draw an image, and two prompts: what each multiplies, and what the teacher then sees."""
    packed, split = prepare(TrainConfig(image_size=SIZE, images=300), progress=False)
    image, _ = next(batches(packed, split.train[7:8], batch_size=1))
    figure, axes = plt.subplots(len(BANDS), 4, figsize=(11, 5.8))
    places = np.fft.fftfreq(SIZE)
    plane = np.fft.fftshift(np.hypot(places[:, None], places[None]))
    axis = {"extent": (-0.5, 0.5, -0.5, 0.5)}
    for row, (name, (low, high)) in zip(axes, BANDS.items(), strict=True):
        radius = radial_frequency(SIZE, SIZE)
        prompted = apply_gain(image, torch.where((radius >= low) & (radius < high), 3.0, 1.0))
        row[0].imshow(_shown(image))
        row[1].imshow((plane >= low) & (plane < high), cmap="coolwarm", vmin=-1, **axis)
        row[2].imshow(_amplitudes(prompted), cmap="magma", **axis)
        row[3].imshow(_shown(prompted))
        titles = ("image", f"gain: 3 at {name}", "amplitudes after it", "what the teacher sees")
        for ax, title in zip(row, titles, strict=True):
            ax.set_title(title, loc="left", fontsize=10.5)
            ax.grid(visible=False)
            ax.set_xticks([])
            ax.set_yticks([])
    for ax in axes[-1, 1:3]:
        ax.set_xlabel("frequency, cycles per pixel")
        ax.set_xticks([-0.5, 0, 0.5])
    OUT.parent.mkdir(parents=True, exist_ok=True)
    plots.save_figure(figure, OUT)


def _shown(image: torch.Tensor) -> np.ndarray:
    return image[0].clamp(0, 1).permute(1, 2, 0).numpy()


def _amplitudes(image: torch.Tensor) -> np.ndarray:
    """Logarithm of the amplitudes, zero frequency in the middle."""
    amplitudes = torch.fft.fft2(image).abs().mean(dim=1)[0]
    return np.fft.fftshift(np.log(amplitudes.numpy() + 1e-3))


if __name__ == "__main__":
    draw()
