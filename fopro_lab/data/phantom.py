"""Phantom lesions: generated pictures whose classes, groups and spectra are known.

A class shows partly in shape and colour, which overlap between classes, and partly in a texture
of its own ring of frequencies inside the lesion. Nothing here is medical.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fopro_lab.config import Decoder, Interpolation
from fopro_lab.data.decoding import resize_square
from fopro_lab.data.lesions import LesionClass, render_view, sample_lesion, sample_view
from fopro_lab.data.sampling import share_out

VERSION = "phantom-1"  # part of the fingerprint: raise the number when pixels change
PICTURES = 3000
TAIL_RATIO = 100  # pictures of the largest class to pictures of the smallest
SOURCES = ("soft", "sharp")
CLASSES = (
    LesionClass("disc", (0.050, 0.085), (0.52, 0.34, 0.25), radius=18.0, ragged=0.05),
    LesionClass("oval", (0.085, 0.125), (0.48, 0.31, 0.23), radius=17.0, stretch=0.25),
    LesionClass("lobed", (0.125, 0.165), (0.54, 0.35, 0.26), radius=18.0, lobes=0.10),
    LesionClass("ragged", (0.165, 0.205), (0.42, 0.27, 0.21), radius=19.0, ragged=0.12),
    LesionClass("pale", (0.205, 0.250), (0.64, 0.44, 0.37), radius=17.0, softness=1.8),
    LesionClass("blotched", (0.250, 0.300), (0.47, 0.32, 0.26), radius=19.0, blotches=0.38),
    LesionClass("dark", (0.300, 0.355), (0.35, 0.23, 0.19), radius=16.0, stretch=0.12),
    LesionClass("red", (0.355, 0.420), (0.56, 0.30, 0.25), radius=16.0, softness=1.5),
)
CLASS_NAMES = tuple(lesion.name for lesion in CLASSES)


def phantom_table(pictures: int = PICTURES, *, seed: int = 0) -> pd.DataFrame:
    """List the pictures of a phantom data set; none is drawn yet.

    Class ``i`` of 8 gets a share that falls as ``100^(-i/7)``, and at least three pictures of
    three lesions. A smaller set is a part of every larger one with the same seed.

    Args:
        pictures: How many, at least 24.
        seed: Another seed gives other lesions.

    Returns:
        The table of a `Dataset`; a group is a lesion, seen in one to three pictures.

    Raises:
        InputError: If there are fewer than three pictures a class.

    Example:
        >>> table = phantom_table(3000)
        >>> table["label"].value_counts().tolist()
        [1454, 753, 390, 202, 105, 54, 28, 14]
        >>> table["image"].iloc[-1], table["group"].iloc[-1], table["source"].iloc[-1]
        ('red-00008-1', 'red-00008', 'soft')
    """
    steps = np.arange(len(CLASSES)) / (len(CLASSES) - 1)
    shares = np.round(1e9 * TAIL_RATIO**-steps).astype(np.int64)
    rows = []
    for label, count in enumerate(share_out(shares, total=pictures, least=3)):
        lesion, view = 0, 0
        for _ in range(count):
            group = f"{CLASS_NAMES[label]}-{lesion:05d}"
            rows.append((f"{group}-{view}", label, group, lesion))
            view += 1
            if view == _views(lesion):
                lesion, view = lesion + 1, 0
    table = pd.DataFrame(rows, columns=["image", "label", "group", "lesion"])
    lesions = table.drop_duplicates("group")
    source = {
        row.group: SOURCES[_lesion_source(seed, row.label, row.lesion)]
        for row in lesions.itertuples()
    }
    table = table.drop(columns="lesion")
    return table.assign(path="", source=table["group"].map(source), split="")


def draw_phantom(image: str, *, seed: int) -> np.ndarray:
    """Draw one picture from its name alone.

    Args:
        image: ``class-lesion-view`` as in `phantom_table`.
        seed: The data set's.

    Returns:
        ``uint8 (64, 64, 3)``, RGB.

    Example:
        >>> draw_phantom("disc-00004-1", seed=0).shape
        (64, 64, 3)
    """
    name, lesion_text, view_text = image.split("-")
    label, lesion, view = CLASS_NAMES.index(name), int(lesion_text), int(view_text)
    shape = sample_lesion(CLASSES[label], np.random.default_rng([seed, label, lesion, 0]))
    sharp = _lesion_source(seed, label, lesion) == 1
    look = sample_view(np.random.default_rng([seed, label, lesion, 2 + view]), sharp=sharp)
    return render_view(shape, look)


@dataclass(frozen=True)
class PhantomReader:
    """Draw row by row; a row depends on its name and the seed, not on the other rows.

    Example:
        >>> PhantomReader(0, ("disc-00000-0",))(0, 32).shape
        (32, 32, 3)
    """

    seed: int
    images: tuple[str, ...]
    interpolation: Interpolation = "bilinear"

    def __call__(self, row: int, size: int) -> np.ndarray:
        """Return the pixels of one row, ``uint8 (size, size, 3)``."""
        return resize_square(self.native(row), size=size, interpolation=self.interpolation)

    def native(self, row: int) -> np.ndarray:
        """Return one picture as it is drawn, ``uint8 (64, 64, 3)``."""
        return draw_phantom(self.images[row], seed=self.seed)

    def take(self, rows: np.ndarray) -> "PhantomReader":
        """Return a reader of these rows alone."""
        return replace(self, images=tuple(self.images[row] for row in rows))

    def with_rules(self, *, decoder: Decoder, interpolation: Interpolation) -> "PhantomReader":
        """Return a reader that resizes so; drawn pictures need no decoder."""
        return replace(self, interpolation=interpolation)


def _views(lesion: int) -> int:
    """Pictures of a lesion; the first three have one, so that small classes have three groups."""
    return 1 if lesion < 3 else 1 + lesion % 3


def _lesion_source(seed: int, label: int, lesion: int) -> int:
    """Draw a lesion's source: the tail is seen more often by the sharp one, as in real archives."""
    rng = np.random.default_rng([seed, label, lesion, 1])
    return int(rng.random() < 0.35 + 0.3 * label / (len(CLASSES) - 1))
