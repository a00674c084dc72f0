import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fopro_lab.config import (
    DataConfig,
    PretrainConfig,
    ProbeConfig,
    PromptConfig,
    TeacherConfig,
    TrainConfig,
    explained,
    merged,
    parse_settings,
    read_yaml,
)
from fopro_lab.errors import InputError


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


def test_read_yaml_gives_names_and_values(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("epochs: 3\nobjectives: {task: 0.5}\n")
    assert read_yaml(path) == {"epochs": 3, "objectives": {"task": 0.5}}
    path.write_text("# nothing but a remark\n")
    assert read_yaml(str(path)) == {}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: 1\nb: [1\n", "expected YAML, got a syntax error in line 3"),
        (b"a: 1\n\tb: 2\n", "expected YAML, got a syntax error in line 2"),
        (b"a: 2024-13-45\n", "expected YAML, got a syntax error"),
        (b"a: !!python/object:os.system x\n", "expected YAML, got a syntax error in line 1"),
        (b"- a\n- b\n", "expected names and values, got a list"),
        (b"just words\n", "expected names and values, got a str"),
    ],
)
def test_read_yaml_says_what_is_wrong(tmp_path, content, expected):
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    assert message(read_yaml, path) == f"{path}: {expected}"


def test_read_yaml_says_what_cannot_be_read(tmp_path):
    path = tmp_path / "no.yaml"
    assert message(read_yaml, path) == f"{path}: no such file"
    assert message(read_yaml, tmp_path).startswith(f"{tmp_path}: cannot be read as text (")
    path.write_bytes(b"\xff\xfe\x00a")
    assert message(read_yaml, path).startswith(f"{path}: cannot be read as text (")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs=3", {"epochs": 3}),
        (" epochs =3", {"epochs": 3}),
        ("learning_rate=1e-3", {"learning_rate": "1e-3"}),  # the config makes a number of it
        ("teacher_mean=[0.5, 0.5, 0.5]", {"teacher_mean": [0.5, 0.5, 0.5]}),
        ("weights=", {"weights": ""}),
        ("dataset=null", {"dataset": "null"}),
        ("dataset=a=b", {"dataset": "a=b"}),
        ("dataset=[broken", {"dataset": "[broken"}),
        ("dataset=2024-13-45", {"dataset": "2024-13-45"}),
        ("objectives.task=0.5", {"objectives": {"task": 0.5}}),
    ],
)
def test_parse_settings_reads_yaml_values(text, expected):
    assert parse_settings([text]) == expected


def test_parse_settings_lets_the_last_one_win_and_gathers_entries():
    texts = ["seed=1", "objectives.task=1", "seed=2", "objectives.identity=0"]
    assert parse_settings(texts) == {"seed": 2, "objectives": {"task": 1, "identity": 0}}
    assert parse_settings([]) == {}


def test_scientific_notation_reaches_the_config():
    values = parse_settings(["learning_rate=3e-4"])
    assert TrainConfig.from_mapping(values).learning_rate == 3e-4


def test_parse_settings_says_what_is_wrong():
    assert message(parse_settings, ["epochs"]) == "--set: expected name=value, got 'epochs'"
    assert message(parse_settings, ["=3"]) == "--set: expected name=value, got '=3'"
    told = message(parse_settings, ["a=1", "a.b=2"])
    assert told == "--set: a.b: 'a' is set to a plain value as well"


def test_merged_puts_settings_on_top_and_changes_neither():
    base = {"epochs": 3, "objectives": {"statistics": 2.0}, "seed": 1}
    top = {"seed": 5, "objectives": {"task": 0.5}}
    assert merged(base, top, kind=TrainConfig) == {
        "epochs": 3,
        "objectives": {"statistics": 2.0, "task": 0.5},
        "seed": 5,
    }
    assert base["objectives"] == {"statistics": 2.0} and top["objectives"] == {"task": 0.5}


def test_merged_starts_a_mapping_from_the_defaults():
    top = {"objectives": {"identity": 0.0}}
    defaults = PromptConfig().objectives
    assert merged({}, top, kind=PromptConfig)["objectives"] == defaults | {"identity": 0.0}


def test_merged_replaces_what_is_no_mapping():
    top = {"objectives": {"task": 1.0}}
    assert merged({"objectives": None}, top, kind=PromptConfig) == top
    assert merged({}, {"unknown": {"a": 1}}, kind=PromptConfig) == {"unknown": {"a": 1}}
    assert merged({"objectives": {"task": 1.0}}, {"objectives": 3}, kind=PromptConfig) == {
        "objectives": 3
    }


@pytest.mark.parametrize(
    "kind", [DataConfig, TeacherConfig, PromptConfig, TrainConfig, ProbeConfig, PretrainConfig]
)
def test_explained_names_every_knob_with_its_meaning(kind):
    lines = explained(kind()).splitlines()
    assert len(lines) == len(kind.model_fields)
    for line, (name, field) in zip(lines, kind.model_fields.items(), strict=True):
        assert line.startswith(f"{name}: ") and line.endswith(f"  # {field.description}")
    assert kind.from_mapping(yaml.safe_load(explained(kind()))) == kind()


AWKWARD = ["null", "...", "- a", "x # y", "a: b", "{", "2024-01-01", "1e3", "C:\\x", " a ", "é"]


@settings(max_examples=40, deadline=None)
@given(
    dataset=st.one_of(st.sampled_from(AWKWARD), st.text(min_size=1, max_size=200)),
    rate=st.floats(1e-12, 10),
    mean=st.lists(st.floats(-1, 1), max_size=12),
    weight=st.floats(0, 1e9),
)
def test_explained_can_be_read_back(dataset, rate, mean, weight):
    # Long values wrap, and some texts look like something else: both must survive.
    config = TrainConfig(
        dataset=dataset,
        learning_rate=rate,
        teacher_mean=tuple(mean),
        objectives={"statistics": weight, "confidence": 1.0, "task": rate, "disagreement": 0.1},
    )
    assert TrainConfig.from_mapping(yaml.safe_load(explained(config))) == config


def test_explained_survives_a_long_path_with_spaces(tmp_path):
    config = TrainConfig(dataset="my images of skin " * 20 + "end")
    path = tmp_path / "config.yaml"
    path.write_text(explained(config), encoding="utf-8")
    assert TrainConfig.from_mapping(read_yaml(path)) == config
