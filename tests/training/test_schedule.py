import pytest

from fopro_lab.config import TrainConfig
from fopro_lab.errors import InputError
from fopro_lab.training.train_prompt import explores, prompted_share


def when(**knobs):
    config = TrainConfig(epochs=6, **knobs)
    return [epoch for epoch in range(6) if explores(config, epoch)]


@pytest.mark.parametrize(
    ("knobs", "epochs"),
    [
        ({}, [0, 2, 4]),
        ({"prompt_every": 1}, [0, 1, 2, 3, 4, 5]),
        ({"prompt_every": 0}, [0]),
        ({"prompt_every": 0, "warmup_epochs": 3}, [3]),
        ({"prompt_every": 2, "warmup_epochs": 1}, [1, 3, 5]),
        ({"method": "random"}, [0, 2, 4]),
        ({"method": "ekd"}, []),
        ({"method": "bsm"}, []),
        ({"prompt_file": "a.safetensors"}, []),
    ],
)
def test_explorations_stand_where_the_config_says(knobs, epochs):
    assert when(**knobs) == epochs


def test_the_share_of_prompted_batches_falls_after_the_warm_up():
    config = TrainConfig(epochs=6, warmup_epochs=1, prompted_fraction=0.8, prompted_decay=0.5)
    shares = [prompted_share(config, epoch) for epoch in range(6)]
    assert shares == pytest.approx([0, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert prompted_share(TrainConfig(epochs=1, prompted_decay=1.0), 0) == 0.75


def test_a_warm_up_that_never_ends_is_refused():
    with pytest.raises(InputError) as error:
        TrainConfig.from_mapping({"epochs": 3, "warmup_epochs": 3})
    assert str(error.value) == "TrainConfig: expected warmup_epochs below epochs = 3, got 3"
    TrainConfig.from_mapping({"epochs": 3, "warmup_epochs": 3, "method": "bsm"})
