import numpy as np
import pytest
from PIL import Image

from fopro_lab.checks.leakage import count_levels, find_shortcuts
from fopro_lab.data import open_dataset, pack


def write(root, *, each=20, bright=0, wide=0, ending="png", top=256):
    """Write noise of two classes; the first is brighter, wider or of another format."""
    rng = np.random.default_rng(0)
    for label in (0, 1):
        first = label == 0
        for number in range(each):
            pixels = rng.integers(0, top - bright * (not first), (32, 32 + wide * first, 3))
            path = root / f"class{label}" / f"{number}.{ending if first else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return pack(open_dataset(root), 32, progress=False)


@pytest.mark.parametrize(
    ("options", "feature"),
    [
        ({"bright": 40}, "brightness"),
        ({"wide": 4}, "size"),
        ({"ending": "jpg"}, "format"),
        ({"ending": "bmp"}, "format"),
    ],
)
def test_what_alone_tells_a_class_is_found(tmp_path, options, feature):
    best = find_shortcuts(write(tmp_path, **options))[0]
    assert (best.feature, best.telling) == (feature, True) and best.accuracy > 0.9


def test_noise_and_few_groups_tell_nothing(tmp_path):
    assert not any(each.telling for each in find_shortcuts(write(tmp_path / "a")))
    few = find_shortcuts(write(tmp_path / "b", each=8, bright=200))
    assert not any(each.accuracy or each.telling for each in few)


def test_count_levels_counts_over_all_channels(tmp_path):
    levels = count_levels(write(tmp_path, each=2, top=9))
    assert levels.max() <= 9 and levels.min() >= 7
