"""The figure of a Fourier basis heat map: a number for every frequency of the plane."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from fopro_lab.errors import ShapeError
from fopro_lab.lab.figures.style import add_footer, in_house_style, new_axes


@in_house_style
def plot_heat_map(
    plane: np.ndarray,
    *,
    title: str = "Fourier basis heat map",
    label: str = "Drift of features, 1 - cos",
    notes: tuple[str, ...] = (),
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Show a value over the whole plane of frequencies, zero frequency in the middle.

    Args:
        plane: ``(H, W)`` in ``fftshift`` order, as ``probing.heat_plane`` lays it out; NaN is
            left white.
        title: Of the figure.
        label: Of the colour bar, with the unit.
        notes: For the footer.
        limits: Of the colours; None takes the plane's own.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The axes, in cycles per pixel.

    Raises:
        ShapeError: If the array has another number of axes.

    Example:
        >>> ax = plot_heat_map(np.eye(8))
        >>> ax.get_xlabel()
        'Horizontal frequency, cycles per pixel'
    """
    if plane.ndim != 2:
        raise ShapeError(f"plane: expected (H, W), got {tuple(plane.shape)}")
    height, width = plane.shape
    extent = tuple(
        edge
        for size in (width, height)
        for edge in (-(size // 2 + 0.5) / size, (size - size // 2 - 0.5) / size)
    )
    low, high = limits or (float(np.nanmin(plane)), float(np.nanmax(plane)))
    ax = new_axes(ax, width=5.4, height=4.4)
    # Rows count downwards, as in the picture, so that a diagonal wave runs as it is seen there.
    image = ax.imshow(
        plane[::-1], cmap="magma", vmin=low, vmax=high, origin="lower",
        extent=(extent[0], extent[1], -extent[3], -extent[2]),
    )  # fmt: skip
    bar = ax.figure.colorbar(image, cax=ax.inset_axes((1.04, 0, 0.045, 1)))
    bar.set_label(label)
    bar.outline.set_visible(False)
    for radius in (0.25, 0.5):
        ring = plt.Circle((0, 0), radius, fill=False, color="#FFFFFF", lw=0.7, ls=(0, (3, 3)))
        ring.set_alpha(0.7)
        ax.add_patch(ring)
    ax.set_xticks([-0.5, -0.25, 0, 0.25, 0.5])
    ax.set_yticks([-0.5, -0.25, 0, 0.25, 0.5])
    ax.grid(visible=False)
    ax.set_xlim(extent[0], extent[1])
    ax.set_ylim(-extent[3], -extent[2])
    ax.set_xlabel("Horizontal frequency, cycles per pixel")
    ax.set_ylabel("Vertical frequency, cycles per pixel")
    ax.set_title(title)
    add_footer(ax, pd.DataFrame(), *notes)
    return ax
