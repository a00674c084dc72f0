import pytest

from fopro_lab.config import DataConfig
from fopro_lab.data import prepare

OPTIONS = {"images": 160, "image_size": 32}


@pytest.fixture(scope="session")
def prepared():
    """A pack of generated images and its split."""
    return prepare(DataConfig(**OPTIONS), progress=False)
