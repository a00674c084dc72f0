"""The contact sheet: what the explorer shows where nothing can be moved."""

import base64
import io
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fopro_lab.fourier import ring_gain
from fopro_lab.lab.bands import BandLens, preset_gains
from fopro_lab.lab.figures import plot_pictures
from fopro_lab.lab.panels import ring_labels
from fopro_lab.lab.widgets.answers import AskedStudent, AskedTeacher, Change
from fopro_lab.lab.widgets.band_state import BandState


def contact_sheet(
    image: Tensor,
    state: BandState,
    now: Change,
    *,
    networks: tuple[AskedTeacher | None, AskedStudent | None] = (None, None),
) -> Figure:
    """Draw a picture as it is, as set, and with each ring removed, then amplified.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        state: Whose rings.
        now: What is set; left out where it changes nothing.
        networks: A teacher, whose drift of this picture stands above each, and a student, whose
            change of mean recall on its small set does, in points; None leaves one out.

    Returns:
        The figure.

    Example:
        >>> state = BandState(rings=1, size=16)
        >>> image = torch.rand(3, 16, 16)
        >>> len(contact_sheet(image, state, state.change()).axes)
        5
    """
    lens, pictures, titles = BandLens(image), [], []
    teacher, student = networks
    for name, change in _changes(state, now):
        view = lens.look(change.gain, phase_lock=change.phase_lock)
        lines = [name]
        if teacher is not None:
            lines.append(f"drift {teacher.drift(image, change):.4f}")
        if student is not None:
            points = 100 * student.ask(image, change).change
            lines.append(f"recall {points:+.1f} points")
        pictures.append(view.after)
        titles.append("\n".join(lines))
    return plot_pictures(np.stack(pictures), titles, columns=5)


def as_base64(figure: Figure) -> str:
    """Turn a figure into the text of a PNG, as a notebook's output holds it, and close it.

    Example:
        >>> as_base64(Figure(figsize=(1, 1)))[:8]
        'iVBORw0K'
    """
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    plt.close(figure)  # else a notebook would show it once more
    return base64.b64encode(stream.getvalue()).decode()


def _changes(state: BandState, now: Change) -> Iterator[tuple[str, Change]]:
    count, size = state.rings + 1, state.size
    yield "as it is", Change(torch.ones_like(now.gain))
    if bool((now.gain != 1).any()):
        yield "as set", now
    for preset in ("remove", "amplify"):
        for ring, label in enumerate(ring_labels(state.edges)):
            gains = torch.tensor([preset_gains(preset, ring=ring, rings=count)])
            gain = ring_gain(gains, state.edges, height=size, width=size)
            yield f"{preset} {label}", Change(gain)
