"""A student of generated images, trained in seconds, and its test images as files."""

import pytest
from PIL import Image

from fopro_lab.config import TrainConfig
from fopro_lab.data import prepare
from fopro_lab.training import distill


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Return a run of balanced softmax, and a folder with its test images as PNG files."""
    folder = tmp_path_factory.mktemp("trained")
    config = TrainConfig(method="bsm", images=400, image_size=32, epochs=2, threads=1)
    run = distill(config, out=folder / "bsm-0", verbose=False)
    packed, split = prepare(config.model_copy(update={"image_size": 64}), progress=False)
    for row in split.test:
        name = packed.dataset.table["image"].iloc[row].replace("/", "_")
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(packed.images[row]).save(folder / "images" / f"{name}.png")
    return run, folder / "images"
