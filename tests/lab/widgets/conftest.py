import pytest

from fopro_lab.config import DataConfig
from fopro_lab.data import prepare

KNOBS = {"images": 160, "image_size": 32}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOPRO_CACHE", str(tmp_path_factory.mktemp("cache")))
        return prepare(DataConfig(**KNOBS), progress=False)
