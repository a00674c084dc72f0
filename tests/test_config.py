"""Options: their ranges, their sources (notebook, file, --set), and how they are explained."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fopro_lab import config
from fopro_lab.config import ClaimsConfig, PromptConfig, TrainConfig
from fopro_lab.options import Config, explain, merge_options, parse_settings, read_yaml
from tests.conftest import complaint
from tools.option_tables import option_tables

KINDS = [
    kind
    for _, kind in inspect.getmembers(config, inspect.isclass)
    if issubclass(kind, Config) and kind is not Config
]


def message(values, read=TrainConfig.from_mapping):
    return complaint(read, values)


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_is_described_and_has_a_valid_default(kind):
    for name, field in kind.model_fields.items():
        assert field.description and "\n" not in field.description, name
        assert not field.is_required(), name
    # pydantic does not validate defaults by itself
    assert kind.from_mapping(kind().model_dump()) == kind()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"epochs": 0}, "epochs: expected greater than or equal to 1, got 0"),
        ({"seed": True}, "seed: expected a number, got true"),
        ({"seed": "010"}, "seed: expected a plain number such as 10, got '010'"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a finite number, got nan"),
        (
            {"objectives": {"task": -1.0}},
            "objectives.task: expected greater than or equal to 0, got -1.0",
        ),
        (
            {"objectives": {"tusk": 1.0}},
            "objectives.tusk: expected 'statistics', 'task', 'spectrum', "
            "'disagreement' or 'identity', got 'tusk'; did you mean 'task'?",
        ),
        (
            {"image_size": 64, "student_size": 65},
            "TrainConfig: expected student_size up to image_size = 64, got 65",
        ),
        ({"epochs": 2, "lr_warmup": 2}, "TrainConfig: expected lr_warmup below epochs = 2, got 2"),
        (
            {"method": "bmsm"},
            "method: expected '' (none), 'ce', 'bsm', 'ekd', 'fopro' or 'random', got 'bmsm'; "
            "did you mean 'bsm'?",
        ),
        ({"lr": 1}, "lr: no such option; did you mean 'learning_rate'?"),
        ({"zzzz": 3}, "zzzz: no such option; docs/options.md lists all"),
        ({"max_skipped": 4}, "max_skipped: no longer an option, always 5; got 4; leave it out"),
        (
            {"images": 4, "pictures": 5},
            "pictures: is called images now, and both are given; leave one out",
        ),
    ],
)
def test_wrong_values_give_one_exact_line_however_they_are_given(values, expected):
    for read in (TrainConfig.from_mapping, TrainConfig.model_validate):
        assert message(values, read) == expected
    assert message(values, lambda own: TrainConfig(**own)) == expected
    assert message(values, lambda own: TrainConfig().model_copy(update=own)) == expected


def test_a_config_is_fixed_its_copies_are_checked_and_it_takes_paths_and_numpy_numbers():
    config = TrainConfig(recipe="published", epochs=3)
    told = message(4, lambda value: setattr(config, "epochs", value))
    assert told.startswith("epochs: a config is fixed; ")
    copy = config.model_copy(update={"epochs": 4})
    assert (copy.epochs, copy.student, copy.recipe) == (4, "resnet18", "published")
    assert message({"epochs": 3}, TrainConfig).startswith("TrainConfig: expected names")
    pairs = {"pairs": [["a", "b", "c"]]}
    assert message(pairs, ClaimsConfig.from_mapping).startswith("pairs.0: expected at most 2")
    config = TrainConfig(dataset=Path("a/b"), epochs=np.int64(3), teacher_mean=np.full(3, 0.5))
    assert (config.dataset, config.epochs, config.teacher_mean) == ("a/b", 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        *((name, text, text) for name in ("dataset", "class_column") for text in
          ("2024", "0012", "1.10", "1e5", "2024-01-31", "12:30", "no", "1_000")),
        *(("seed", text, None) for text in ("010", "1:30", "true", "0x10")),
        ("seed", "12", 12),
        ("learning_rate", "1e-3", 1e-3),
        ("learning_rate", "0.10", 0.1),
        ("deterministic", "false", False),
    ],
)  # fmt: skip
def test_a_value_means_the_same_on_the_command_line_and_in_a_file(tmp_path, name, text, expected):
    (tmp_path / "a.yaml").write_text(f"{name}: {text}\n")
    for values in (parse_settings([f"{name}={text}"]), read_yaml(tmp_path / "a.yaml")):
        if expected is None:
            assert message(values).startswith(f"{name}: expected")
        else:
            assert getattr(TrainConfig.from_mapping(values), name) == expected


def test_the_published_recipe_is_the_releases():
    # docs/method.md, section 1.
    config = TrainConfig.from_mapping({"recipe": "published"})
    expected = {"student": "resnet18", "image_size": 224, "batch_size": 32, "optimiser": "adam",
                "learning_rate": 3e-4, "clip_norm": 5.0, "distill_weight": 3.0,
                "augment": "published", "augment_mode": "exact"}  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected
    # A given option wins over the recipe, a notebook's untouched parameter does not.
    config = TrainConfig.from_mapping({"recipe": "published", "image_size": 64, "epochs": 3})
    assert (config.image_size, config.student, config.epochs) == (64, "resnet18", 3)
    assert TrainConfig.from_mapping(config.model_dump()) == config
    defaults = TrainConfig().model_dump()
    config = TrainConfig.from_parameters({**defaults, "recipe": "published", "batch_size": 8})
    assert (config.student, config.image_size, config.batch_size) == ("resnet18", 224, 8)
    assert TrainConfig.from_parameters(defaults) == TrainConfig()


def test_options_of_a_notebook_fill_what_it_does_not_declare():
    namespace = {"epochs": 3, "method": "ekd", "unrelated": object()}
    namespace["options"] = {"batch_size": 8, "rate_warmup": 1}
    wanted = TrainConfig(epochs=3, method="ekd", batch_size=8, lr_warmup=1)
    assert TrainConfig.from_parameters(namespace) == wanted
    for options, expected in [
        ({"batchsize": 8}, "batchsize: no such option; did you mean 'batch_size'?"),
        ({"epochs": 4}, "epochs: given twice, once in options; leave one out"),
        ([3], "options: expected names and values, got [3]"),
    ]:
        assert message({**namespace, "options": options}, TrainConfig.from_parameters) == expected
    assert TrainConfig.from_parameters({"epochs": 10, "options": {"epochs": 4}}).epochs == 4


def test_names_of_the_last_version_are_taken_with_a_line_and_what_is_gone_at_its_default(capsys):
    old = {"pictures": 40, "explore_rate": 0.1, "max_skipped": 5}
    config = TrainConfig.from_mapping(old)
    assert (config.images, config.prompt_learning_rate) == (40, 0.1)
    assert capsys.readouterr().err.splitlines() == [
        "fopro: pictures is called images now; the old name goes with 0.3",
        "fopro: explore_rate is called prompt_learning_rate now; the old name goes with 0.3",
    ]


def test_read_yaml_says_what_is_wrong(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("epochs: 3\nobjectives: {task: 0.5}\n")
    assert read_yaml(path) == {"epochs": 3, "objectives": {"task": 0.5}}
    for content, expected in {
        b"a: 1\nb: [1\n": "expected YAML, got a syntax error in line 3",
        b"a: !!python/object:os.system x\n": "expected YAML, got a syntax error in line 1",
        b"- a\n- b\n": "expected names and values, got a list",
        b"a: 1\nb: 2\na: 3\n": "expected each name once, got 'a' twice in line 3",
        b"a: &a [*a]": "expected less, got more than 50,000 values or 40 levels, in line 1",
        b"a: " + b"[" * 3000 + b"]" * 3000: "expected less, got more than 50,000 values",
        b"a: &a [1, 1, 1]\n"
        + b"".join(
            b"b%d: &b%d [*%s, *%s, *%s]\n" % (n, n, *[b"b%d" % (n - 1) if n else b"a"] * 3)
            for n in range(20)
        ): "expected less, got more than 50,000 values",
        b"a: '" + b"x" * 4_000_000 + b"'": "expected up to 4,000,000 bytes, got",
        b"a: !!float 1:30": "expected YAML, got a syntax error in line 1",
        b"x: 1\ny: 2\nb: {a: 1, a: 2}\n": "expected each name once, got 'a' twice in line 3",
        b"\xff\xfe\x00a": "cannot be read as text (",
    }.items():
        path.write_bytes(content)
        assert message(path, read_yaml).startswith(f"{path}: {expected}")
    path.unlink()
    assert message(path, read_yaml) == f"{path}: no such file"


def test_parse_settings_reads_yaml_values_and_says_what_is_wrong():
    for text, expected in {
        "learning_rate=1e-3": {"learning_rate": "1e-3"},  # the config makes a number of it
        "teacher_mean=[0.5, 0.5, 0.5]": {"teacher_mean": [0.5, 0.5, 0.5]},
        "weights=": {"weights": ""},
        "dataset=null": {"dataset": "null"},
        "dataset=a=b": {"dataset": "a=b"},
        "dataset=2024-13-45": {"dataset": "2024-13-45"},
        "objectives.task=0.5": {"objectives": {"task": 0.5}},
    }.items():
        assert parse_settings([text]) == expected
    assert message(["=3"], parse_settings) == "--set: expected name=value, got '=3'"
    expected = "--set: a.b: 'a' is set to a plain value as well"
    assert message(["a=1", "a.b=2"], parse_settings) == expected


def test_merge_options_puts_settings_on_top_and_changes_neither():
    base = {"epochs": 3, "objectives": {"statistics": 2.0}, "seed": 1}
    top = {"seed": 5, "objectives": {"task": 0.5}}
    both = {"epochs": 3, "objectives": {"statistics": 2.0, "task": 0.5}, "seed": 5}
    assert merge_options(base, top, kind=TrainConfig) == both
    assert base["objectives"] == {"statistics": 2.0} and top["objectives"] == {"task": 0.5}
    top = {"objectives": {"identity": 0.0}}  # starts from the defaults
    defaults = PromptConfig().objectives
    assert merge_options({}, top, kind=PromptConfig)["objectives"] == defaults | {"identity": 0.0}


AWKWARD = ["null", "...", "- a", "x # y", "a: b", "{", "2024-01-01", "1e3", "C:\\x", " a ", "é"]


@settings(max_examples=15, deadline=None)
@given(
    dataset=st.one_of(st.sampled_from(AWKWARD), st.text(min_size=1, max_size=200)),
    rate=st.floats(1e-12, 10),
    mean=st.lists(st.floats(-1, 1), max_size=12),
    weight=st.floats(0, 1e9),
)
def test_explain_can_be_read_back(dataset, rate, mean, weight):
    # Long values wrap, and some texts look like something else: both must survive.
    config = TrainConfig(
        dataset=dataset,
        learning_rate=rate,
        teacher_mean=tuple(mean),
        objectives={"statistics": weight, "task": rate, "disagreement": 0.1},
    )
    assert TrainConfig.from_mapping(yaml.safe_load(explain(config))) == config


def test_the_committed_tables_of_options_are_the_current_ones():
    committed = Path(__file__).parents[1] / "docs/options.md"
    assert committed.read_text(encoding="utf-8") == option_tables(), "run `make options`"
