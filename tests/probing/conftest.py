from types import SimpleNamespace

import numpy as np
import pytest

from fopro_lab.data import Split
from tests.probing.toys import CLASS_NAMES, Stub, amplitudes, make_pack, wave_images


@pytest.fixture
def world():
    """A pack of 90 images, 45 lesions of two images each, and a split by lesion."""
    lesion = np.repeat(np.arange(45), 2)
    labels = (lesion % 3).astype(np.int64)
    source = np.where(lesion % 2 == 0, "a", "b")
    train, val, test = np.split(np.arange(90), [30, 48])
    return SimpleNamespace(
        pack=make_pack(wave_images(labels), labels, lesion, source, CLASS_NAMES),
        split=Split(train, val, test, protocol="waves/groups/toy", fingerprint="s" * 64),
        groups={"slow": "head", "fast": "medium", "flat": "tail"},
        teacher=Stub(amplitudes),
    )
