"""The Python API: wrong arguments give one line with the way out, and all user text is text."""

from pathlib import Path

import numpy as np
import pytest

from fopro_lab.config import ClaimsConfig, TrainConfig, parse_settings, read_yaml
from fopro_lab.errors import InputError


def complaint(call, *arguments, **options):
    """Return the one line that a call is refused with."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"lr": 1}, "lr: not a name of TrainConfig; did you mean 'learning_rate'?"),
        ({"batchsize": 8}, "batchsize: not a name of TrainConfig; did you mean 'batch_size'?"),
        ({"method": "kd"}, "method: expected 'ce', 'bsm', 'ekd', 'fopro' or 'random', got 'kd'"),
        ({"seed": True}, "seed: expected a number, got true"),
        ({"seed": "010"}, "seed: expected a plain number such as 10, got '010'"),
        ({"learning_rate": "1_0"}, "learning_rate: expected a plain number such as 10, got '1_0'"),
        ({"lr_milestones": [2, True]}, "lr_milestones: expected a number, got true"),
        ({"objectives": {"task": True}}, "objectives.task: expected a number, got true"),
        (
            {"objectives": ["task"]},
            "objectives: expected names with values, such as {'name': 1.0}, got ['task']",
        ),
    ],
)
def test_a_config_refuses_wrong_options_in_one_line(options, expected):
    assert complaint(TrainConfig, **options) == expected
    assert complaint(TrainConfig.from_mapping, options) == expected
    assert complaint(TrainConfig.model_validate, options) == expected
    assert complaint(TrainConfig().model_copy, update=options) == expected


def test_a_config_is_fixed_and_its_copies_are_checked():
    config = TrainConfig(recipe="published", epochs=3)
    assert complaint(setattr, config, "epochs", 4).startswith("epochs: a config is fixed; ")
    copy = config.model_copy(update={"epochs": 4})
    assert (copy.epochs, copy.student, copy.recipe) == (4, "resnet18", "published")
    assert complaint(TrainConfig, {"epochs": 3}).startswith("TrainConfig: expected names")
    assert complaint(ClaimsConfig, pairs=[["a", "b", "c"]]).startswith(
        "pairs.0: expected at most 2"
    )


def test_a_config_takes_paths_and_numpy_numbers():
    config = TrainConfig(dataset=Path("a/b"), epochs=np.int64(3), teacher_mean=np.full(3, 0.5))
    assert (config.dataset, config.epochs, config.teacher_mean) == ("a/b", 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        *((name, text, text) for name in ("dataset", "class_column") for text in
          ("2024", "0012", "1.10", "1e5", "2024-01-31", "12:30", "no", "1_000")),
        ("seed", "12", 12),
        ("seed", "010", None),
        ("seed", "1:30", None),
        ("seed", "true", None),
        ("seed", "0x10", None),
        ("learning_rate", "1e-3", 1e-3),
        ("learning_rate", "0.10", 0.1),
        ("fold_teacher", "false", False),
    ],
)  # fmt: skip
def test_a_value_means_the_same_on_the_command_line_and_in_a_file(tmp_path, name, text, expected):
    (tmp_path / "a.yaml").write_text(f"{name}: {text}\n")
    for values in (parse_settings([f"{name}={text}"]), read_yaml(tmp_path / "a.yaml")):
        if expected is None:
            assert complaint(TrainConfig.from_mapping, values).startswith(f"{name}: expected")
        else:
            assert getattr(TrainConfig.from_mapping(values), name) == expected


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3\n", "x: 1\ny: 2\nb: {a: 1, a: 2}\n"])
def test_a_key_that_comes_twice_in_a_file_is_refused(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    told = complaint(read_yaml, tmp_path / "a.yaml")
    assert told == f"{tmp_path / 'a.yaml'}: expected each name once, got 'a' twice in line 3"
