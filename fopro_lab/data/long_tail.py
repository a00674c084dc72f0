"""A long tail of a chosen ratio: the rule behind ISIC-2019-LT, for any data set."""

from collections.abc import Sequence

import numpy as np

from fopro_lab.data.catalog import Dataset
from fopro_lab.data.drawing import Wanted, draw_missing, name_drawing
from fopro_lab.data.parts import PARTS, Split, make_parts
from fopro_lab.data.sampling import hashed_order
from fopro_lab.errors import InputError

ISIC2019_TOTALS = (12875, 4522, 3323, 2624, 867, 628, 253, 239)  # NV MEL BCC BKL AK SCC VASC DF
ISIC2019_HELD_OUT = 150  # pictures of each class: 50 for validation, 100 for test


def make_long_tail(
    dataset: Dataset,
    *,
    ratio: float,
    val_fraction: float = 0.15,
    test_fraction: float = 0.25,
    val_per_class: int = 0,
    test_per_class: int = 0,
    seed: int = 0,
) -> Split:
    """Draw validation and test, then thin the training part to a long tail.

    Classes keep their order by size and get `long_tail_counts` training pictures. With
    ``val_per_class=50, test_per_class=100`` this is the rule of ISIC-2019-LT, whose curve starts
    from all pictures of the largest class. Validation and test by share, or given by the data
    set, stay natural, and the curve starts from what is left of the largest class for training,
    so that the ratio is the training part's own. Thinned pictures belong to no part.

    Args:
        dataset: The pictures; a given split is honoured, only its training part is thinned.
        ratio: Smallest to largest class, in (0, 1].
        val_fraction: As in `make_split`.
        test_fraction: As in `make_split`.
        val_per_class: As in `make_split`.
        test_per_class: As in `make_split`.
        seed: Another seed gives another split.

    Returns:
        The split.

    Raises:
        InputError: As `make_split`, or if a class would keep no training picture.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> dataset = open_dataset("phantom", pictures=800)
        >>> split = make_long_tail(dataset, ratio=0.01, val_per_class=1, test_per_class=2)
        >>> split.protocol, split.class_counts(dataset).tolist()
        ('phantom-800/groups/longtail0.01-val1-test2/seed0', [385, 198, 101, 51, 25, 11, 4, 1])
    """
    _check_ratio(ratio)
    wanted = (
        Wanted("test", test_fraction, test_per_class),
        Wanted("val", val_fraction, val_per_class),
    )
    parts, drawn = draw_missing(dataset, wanted=wanted, seed=seed)
    labels = dataset.table["label"].to_numpy()
    totals = np.bincount(labels, minlength=len(dataset.class_names))
    left = np.bincount(labels[parts == "train"], minlength=len(dataset.class_names))
    ranked = np.argsort(-totals, kind="stable")
    balanced = len(drawn) == len(wanted) and all(part.per_class for part in drawn)
    largest = int((totals if balanced else left)[ranked[0]])
    counts = np.zeros_like(left)
    counts[ranked] = long_tail_counts(left[ranked].tolist(), ratio=ratio, largest=largest)
    for label in np.flatnonzero((counts == 0) & (left > 0)):
        raise InputError(
            f"tail_ratio: expected a ratio that leaves every class a picture, got {ratio:g}: "
            f"{dataset.name} has {totals[label]} of '{dataset.class_names[label]}', none would be "
            "left; take a larger one"
        )
    protocol = name_drawing(dataset, drawn, seed=seed, thinning=f"longtail{ratio:g}")
    given = set(PARTS) - {part.name for part in drawn}
    return make_parts(dataset, _thin(dataset, parts, counts, seed), protocol, given=given)


def long_tail_counts(left: Sequence[int], *, ratio: float, largest: int) -> list[int]:
    """Return the training pictures of each class under an exponential tail.

    Args:
        left: Pictures that may be trained on, the K classes in the order of their size.
        ratio: Smallest to largest class before the cap, in (0, 1].
        largest: Pictures from which the curve starts.

    Returns:
        ``n_i = min(floor(largest ratio^(i/(K-1))), left_i)`` for the ranks 0 to K-1.

    Raises:
        InputError: If the ratio is not in (0, 1].

    Source: Cui et al., CVPR 2019, arXiv:1901.05555, sec. 5.1, for the exponential tail; the cap is
        the one that reproduces FoPro-KD's files.

    Example:
        >>> long_tail_counts([90, 40, 30], ratio=0.01, largest=100)
        [90, 10, 1]
    """
    _check_ratio(ratio)
    steps = max(len(left) - 1, 1)
    # A hair above: 32 x (1/32)^(2/5) is 8, where double precision says 7.999999999999999.
    curve = [int(largest * ratio ** (rank / steps) * (1 + 1e-12)) for rank in range(len(left))]
    return [min(pictures, most) for pictures, most in zip(curve, left, strict=True)]


def isic2019_lt_counts(ratio: float) -> list[int]:
    """Return ISIC-2019-LT's training pictures of each class, largest class first.

    Args:
        ratio: Smallest to largest class before the cap, e.g. 0.01, 0.005, 0.002.

    Returns:
        ``n_i = min(floor(12875 ratio^(i/7)), total_i - 150)`` for the ranks 0 to 7; 150 pictures
        of each class are kept for validation and test.

    Raises:
        InputError: If the ratio is not in (0, 1].

    Source: the split files published with FoPro-KD (Elbatel et al., IEEE TMI 43(3), 2024).

    Example:
        >>> isic2019_lt_counts(0.01)
        [12725, 4372, 3173, 1788, 717, 478, 103, 89]
    """
    left = [total - ISIC2019_HELD_OUT for total in ISIC2019_TOTALS]
    return long_tail_counts(left, ratio=ratio, largest=ISIC2019_TOTALS[0])


def _check_ratio(ratio: float) -> None:
    if not 0 < ratio <= 1:
        raise InputError(f"ratio: expected above 0 and at most 1, got {ratio}")


def _thin(dataset: Dataset, parts: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """Keep so many training pictures of each class, by whole groups but for the last."""
    table = dataset.table[["image", "group", "label"]].assign(row=np.arange(len(dataset)))
    training = table[parts == "train"]
    place = {name: i for i, name in enumerate(hashed_order(training["group"], seed=seed))}
    training = training.assign(place=training["group"].map(place)).sort_values(["place", "image"])
    rank = training.groupby("label").cumcount().to_numpy()
    thinned = parts.copy()
    thinned[training["row"].to_numpy()[rank >= counts[training["label"].to_numpy()]]] = ""
    return thinned
