"""Methods as a loss, a distillation and a prompt: names, identity, own code, refusals."""

import importlib
import re
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import rgb_to_hsv, to_rgb
from safetensors.torch import load_file

from fopro_lab.config import PRESETS, WEIGHTS, Parts, TrainConfig
from fopro_lab.data import batches, prepare
from fopro_lab.evaluation import Run, method_label, teacher_of
from fopro_lab.evaluation.compare import check_comparable
from fopro_lab.evaluation.prior_shift import implicit_prior
from fopro_lab.models.student import COSINE_LOSSES
from fopro_lab.plots import style
from fopro_lab.plots.style import method_look
from fopro_lab.reports.plan import missing_inputs
from fopro_lab.training import distill, run_name
from fopro_lab.training.losses import DISTILLATIONS, LOSSES
from fopro_lab.training.methods import Part, find_method
from fopro_lab.training.run_folder import TrainedRun, deciding_options
from fopro_lab.training.statistics import natural_distance, reference_of
from fopro_lab.training.train_prompt import adapt_images
from tests.conftest import complaint, failure
from tests.evaluation.toy_runs import run_of
from tests.models.toys import norm_teacher, toy_images
from tests.training.forked import TINY

NONE = Part("distillation", "none", len, ())
PAGE = Path(__file__).parents[2] / "docs/own_method.md"


def tiny(**options: object) -> TrainConfig:
    return TrainConfig(**TINY | {"images": 96, "epochs": 1} | options)


def quiet(config: TrainConfig, out: Path, **objects: object) -> TrainedRun:
    return distill(config, out=out, verbose=False, **objects)


def test_a_preset_is_its_parts_and_given_parts_go_first():
    assert TrainConfig(method="fopro").parts == ("bsm", "ekd", "fopro")
    found = {
        TrainConfig(**options).parts.label: options
        for options in (
            {"method": "", "loss": "ldam"},
            {"method": "bsm", "distillation": "kd"},
            {"method": "fopro", "loss": "focal"},
            {"method": "ce", "loss": "bsm"},
            {"method": "ekd", "prompt": "vptta"},
            {"method": "bsm", "loss": "mine:loss"},
        )
    }
    assert [*found] == ["ldam", "bsm+kd", "focal+ekd+fopro", "bsm", "bsm+ekd+vptta", "mine:loss"]
    labels = [method_label(name) for name in ("ldam", "bsm+kd", "bsm+ekd+fopro", "fopro")]
    assert labels == ["LDAM", "BSM + KD", "BSM + EKD + Fourier prompt",
                      "FoPro-KD"]  # fmt: skip
    labels = [method_label(name) for name in ("ce&fopro+ensemble", "fopro+crt", "ce+mixup")]
    assert labels == ["cross-entropy & FoPro-KD + ensemble", "FoPro-KD + cRT",
                      "cross-entropy + mixup"]  # fmt: skip
    assert method_label("bsm+progressive-sampler") == "BSM + progressive sampling"
    looks = {method_look(name)[:2] for name in (*found, *PRESETS)}
    assert len(looks) == len({*found, *PRESETS})


def test_methods_that_are_often_drawn_together_look_different():
    looks = [method_look(name)[:2] for name in style._OFTEN]
    for (color, marker), (other, same) in combinations(looks, 2):
        hues = [rgb_to_hsv(to_rgb(each))[0] for each in (color, other)]
        apart = abs(hues[0] - hues[1])
        assert marker != same or 0.15 < apart < 0.85, (color, other)
        assert color != other


def test_a_distillation_has_its_own_weight_unless_one_is_given():
    assert LOSSES.keys() | DISTILLATIONS.keys() | {"none"} == {
        *TrainConfig.model_fields["loss"].examples,
        *TrainConfig.model_fields["distillation"].examples,
    } - {"module:name"}
    kd = TrainConfig(method="bsm", distillation="kd", recipe="published")
    assert kd.distill_weight == WEIGHTS["kd"] == 9
    assert kd.model_copy(update={"distillation": "sp"}).distill_weight == 3000
    given = TrainConfig(distillation="kd", distill_weight=2)
    assert given.model_copy(update={"distillation": "sp"}).distill_weight == 2
    assert TrainConfig(distillation="mine:term").distill_weight == 1
    # Given at the preset's own weight, it is given: the user's own term keeps it.
    for options, weight in (({"distill_weight": 3}, 3), ({}, 1)):
        config = TrainConfig(method="ekd", **options)
        found, _ = find_method(config, distillation=DISTILLATIONS["ekd"])
        assert found.distill_weight == weight


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"loss": "bal"},
            "loss: expected ce, bsm, logit-adjustment, focal, class-balanced, ldam, ",
        ),
        ({"method": ""}, "a loss with method '', got none"),
        ({"method": "bsm", "prompt": "fopro"}, "a distillation with prompt fopro, which is for"),
        ({"loss": "ldam-drw", "epochs": 4}, "5 epochs or more with loss ldam-drw, got 4"),
        ({"distillation": "dkd", "mixup_alpha": 0.1}, "no mixup with distillation dkd"),
        ({"distillation": "dkd", "mixup": 0.1}, "no mixup with distillation dkd"),
        ({"distillation": "rkd", "batch_size": 2}, "batch_size 3 or more with distillation rkd"),
        ({"mixup": 0.1, "mixup_alpha": 0.1}, "mixup = 0 with mixup_alpha"),
        ({"prompt": "vptta", "prompt_file": "a"}, "prompt fopro or random with prompt_file"),
        (
            {"distillation": "sp", "objectives": {"disagreement": 1.0}},
            "distillation ekd with objective disagreement, got sp",
        ),
    ],
)
def test_parts_that_make_no_sense_together_are_refused_in_a_line(options, words):
    assert words in complaint(TrainConfig.from_mapping, options)


@pytest.mark.parametrize(
    ("name", "value", "used", "unused"),
    [
        ("prompt_file", "a", {"method": "random"}, {"method": "ekd"}),
        ("distill_weight", 2, {"method": "bsm"}, {"method": "", "loss": "ldam"}),
        ("temperature", 2, {"method": "bsm", "distillation": "kd"}, {"method": "ekd"}),
        ("dkd_alpha", 2, {"distillation": "dkd"}, {"distillation": "kd"}),
        ("logit_tau", 2, {"loss": "logit-adjustment"}, {"loss": "bsm"}),
        ("focal_gamma", 1, {"loss": "focal"}, {"loss": "ce"}),
        ("effective_beta", 0, {"loss": "ldam-drw"}, {"loss": "ldam"}),
    ],
)
def test_an_option_that_the_method_does_not_use_is_refused_by_name(name, value, used, unused):
    find_method(TrainConfig(**used, **{name: value}))
    config = TrainConfig(**unused, **{name: value})
    told = f"{name}: expected none, as {config.parts.label} does not use it, got"
    assert complaint(find_method, config).startswith(told)
    assert missing_inputs(config)[0].startswith(told)  # a dry run says it, too
    if name != "prompt_file":
        assert not missing_inputs(TrainConfig(**used, **{name: value}))
    # The user's own function, given as an object, may use it.
    if name == "temperature":
        find_method(config, distillation=DISTILLATIONS["kd"])


def test_a_run_is_one_however_its_method_is_said(tmp_path):
    plain = deciding_options(tiny(method="bsm"))
    assert not {*Parts._fields, "temperature", "dkd_beta"} & plain.keys()
    assert plain == deciding_options(tiny(method="ce", loss="bsm"))
    ways = ({"method": "", "loss": "focal"}, {"method": "bsm", "loss": "focal"})
    names = {run_name(tiny(**way)) for way in ways}
    assert len(names) == 1 and next(iter(names)).startswith("phantom-focal-small-s0-")
    assert run_name(tiny(**ways[0], focal_gamma=1)) not in names
    run = quiet(tiny(**ways[0]), tmp_path / "run")
    assert (run.method, run.manifest["method"]) == ("focal", "focal")
    assert quiet(tiny(**ways[1]), tmp_path / "run").manifest == run.manifest
    told = complaint(quiet, tiny(**ways[0], focal_gamma=1.0), tmp_path / "run")
    assert "(focal_gamma: 2.0 there, 1.0 here)" in told
    told = complaint(quiet, tiny(method="bsm"), tmp_path / "run")
    assert "(loss: 'focal' there, '' here, " in told and "method: '' there, 'bsm' here)" in told


METHODS = [
    {"method": "", "loss": "ldam-drw", "epochs": 5, "mixup_alpha": 0.2, "label_smoothing": 0.1},
    {"method": "fopro", "loss": "class-balanced", "distillation": "kd", "epochs": 2},
    {"method": "bsm", "distillation": "dkd", "sampler": "class-balanced", "label_smoothing": 0.1},
    {
        "method": "ekd",
        "loss": "ldam",
        "prompt": "vptta",
        "teacher_views": 1,
        "epochs": 2,
        "prompted_fraction": 1.0,
    },
    {"method": "bsm", "distillation": "fitnet", "ema_decay": 0.9, "select": "ema"},
    {"method": "", "loss": "focal", "distillation": "rkd", "mixup": 0.2},
    {"method": "", "loss": "logit-adjustment", "distillation": "sp"},
]


@pytest.mark.parametrize("options", METHODS, ids=lambda options: TrainConfig(**options).parts.label)
def test_methods_train_and_their_folders_are_whole(tmp_path, options):
    config = tiny(**options)
    run = quiet(config, tmp_path / "run")
    packed, split = prepare(config, progress=False)
    images, _ = next(batches(packed, split.val, batch_size=len(split.val)))
    logits = run.predictions.filter(like="logit_").to_numpy()[: len(split.val)]
    again = run.classifier(packed, split)(images).detach().numpy()
    np.testing.assert_allclose(again, logits, rtol=0, atol=1e-3)
    if config.parts.loss in COSINE_LOSSES:
        assert np.abs(logits).max() <= 30 and run.student().classifier.bias is None
    losses = run.history.filter(like="loss_")
    parts = ["loss_classes"] * config.parts.is_taught
    parts += ["loss_second"] * (config.parts.distillation == "ekd")
    assert [*losses] == parts + ["loss_distill"] * config.parts.is_taught
    if parts:
        total = losses[parts].sum(axis=1) + config.distill_weight * losses["loss_distill"]
        np.testing.assert_allclose(total, run.history["loss"], rtol=1e-4)
    asked = "teacher_logits" in find_method(config)[1].get("distillation", NONE).takes
    assert (run.path / "probe.safetensors").exists() == ("teacher_probe" in run.manifest) == asked
    if config.teacher_views:  # behind the prompt, too: the second epoch sees them again
        assert run.manifest["teacher_features"]["hit_rate"] > 0.4


def test_vptta_moves_each_image_alone_towards_what_the_teacher_expects():
    teacher, images = norm_teacher(seed=1), toy_images(3, 16)
    reference = reference_of(teacher)
    how = {"teacher": teacher, "reference": reference, "learning_rate": 0.05, "max_log_gain": 0.7}
    with torch.inference_mode():  # as where it is called
        found = adapt_images(images, steps=10, **how)
        alone = torch.cat([adapt_images(image[None], steps=10, **how) for image in images])
    torch.testing.assert_close(found, alone, rtol=0, atol=1e-4)
    before, after = (torch.fft.rfft2(x.double()) for x in (images, found))
    ratio = after / before
    low = torch.zeros(16, 9, dtype=torch.bool)
    low[[0, 1, 2, -2, -1], :3] = True
    assert (ratio[..., ~low] - 1).abs().max() < 1e-3 < (ratio.abs() - 1)[..., low].abs().max()
    assert ratio[..., low].angle().abs().max() < 1e-3 and ratio.abs().log().abs().max() < 0.71
    # Images get gains of their own, and each is nearer to what the norms expect.
    assert (ratio[0].abs() - ratio[1].abs()).abs().max() > 1e-3
    for old, new in zip(images, found.clone(), strict=True):
        measured = [natural_distance(teacher, x[None], reference=reference) for x in (old, new)]
        assert measured[1] < measured[0]


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """Work in a folder whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    yield
    for name, module in dict(sys.modules).items():
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def test_the_page_on_own_methods_holds(own_folder, fopro):
    blocks = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = (text for kind, text in blocks if kind == "python")
    assert len([line for line in code.splitlines() if line.strip()]) < 25
    Path("own.py").write_text(code)
    small = [part for name, value in (TINY | {"images": 96, "epochs": 1}).items()
             for part in ("--set", f"{name}={value}")]  # fmt: skip
    (shell,) = (text for kind, text in blocks if kind == "sh")
    commands = [line.split()[1:] for line in shell.splitlines()]
    for words in commands:
        assert fopro(*words, *small)[0] == 0, words
    whole = TrainedRun.read("runs/own")
    assert whole.method == "own:poly+own:Whitened+own:blur" and whole.manifest["prompt_sha256"]
    assert not [name for name in load_file("runs/own/student.safetensors") if "distiller" in name]
    # The same again is the run that is there; an edited file is another.
    assert fopro(*commands[0], *small)[0] == 0
    Path("own.py").write_text(code.replace("1 - log_p", "2 - log_p"))
    code, _, told = fopro(*commands[0], *small)
    assert code == 2 and "what 'loss' names has changed since this run began (another loss" in told
    config = TrainConfig(**TINY | {"images": 96, "epochs": 1}, method="bsm")
    module = importlib.import_module("own")
    assert quiet(config, Path("runs/object"), loss=module.poly).method == "own:poly"


CODE = """
import torch
def vector(logits, labels): return logits.sum(dim=1)
def fails(logits, labels): return logits[:, 99].sum()
def detached(logits, labels): return torch.nn.functional.cross_entropy(logits.detach(), labels)
def asks(logits, answer): return logits.sum()
def number_of(logits, labels): return 1.0
def constant(features): return features.sum()
def exact(images): return images.double()
def in_place(logits, labels):
    shares = logits.softmax(dim=1)
    loss = (shares * shares).sum()
    shares += 1
    return loss
def endless(logits, labels): return logits.sum() / 0
def smaller(images): return images[..., 1:]
number = 3
class Weighed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.tensor(2.0))
    def forward(self, logits, labels):
        return self.weight * torch.nn.functional.cross_entropy(logits, labels)
class Counting(Weighed):
    def forward(self, logits, labels):
        self.weight += 1
        return super().forward(logits, labels)
class Replacing(Weighed):
    def forward(self, logits, labels):
        self.weight = self.weight + 1
        return super().forward(logits, labels)
class Trained(Weighed):
    def __init__(self):
        super().__init__()
        self.map = torch.nn.Linear(3, 3)
class Asking(Weighed):
    def __init__(self, width):
        super().__init__()
class Broken(torch.nn.Module):
    def __init__(self, student_dim, teacher_dim):
        raise ValueError("no")
    def forward(self, student_features, features): return features.sum()
class Turned(torch.nn.Module):
    def __init__(self, teacher_dim, student_dim):
        super().__init__()
        self.map = torch.nn.Linear(student_dim, teacher_dim)
    def forward(self, student_features, features):
        return (self.map(student_features) - features).square().mean()
"""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"loss": "own_bad:vector"}, "own_bad:vector: expected a tensor that is one number, got "
         "shape (16,), torch.float32"),
        ({"loss": "own_bad:number_of"}, "own_bad:number_of: expected a tensor that is one number, "
         "got a float"),
        ({"loss": "own_bad:detached"}, "own_bad:detached: expected a value with a gradient, got "),
        ({"distillation": "own_bad:constant"}, "own_bad:constant: expected a value with a grad"),
        ({"loss": "own_bad:Counting"}, "own_bad:Counting: expected buffers that it leaves alone"),
        ({"loss": "own_bad:Replacing"}, "own_bad:Replacing: expected buffers that it leaves al"),
        ({"loss": "own_bad:in_place"}, "own_bad:in_place: cannot be differentiated (RuntimeError"),
        ({"method": "ekd", "prompt": "own_bad:exact", "prompted_fraction": 1.0},
         "own_bad:exact: expected a tensor of shape (16, 3, 16, 16), torch.float32, got shape "),
        ({"loss": "own_bad:fails"}, "own_bad:fails: cannot be called (IndexError: index 99"),
        ({"loss": "own_bad:asks"}, "own_bad:asks: takes answer; it can be given logits, "),
        ({"loss": "own_bad:number"},
         "own_bad:number: expected a function or a class of nn.Module, got 3"),
        ({"loss": "own_bad:Trained"}, "own_bad:Trained: expected no parameters, for only a distil"),
        ({"loss": "own_bad:Asking"},
         "own_bad:Asking: cannot be built with no arguments (TypeError: Asking.__init__() missi"),
        ({"distillation": "own_bad:Broken"}, "own_bad:Broken: cannot be built with student_dim, "
         "teacher_dim (ValueError: no)"),
        ({"loss": "own_bad:endless"}, "own_bad:endless, or train again with a learning_rate below"),
        ({"loss": "own_bad:no"}, "own_bad:no: cannot be called (AttributeError: module"),
        ({"method": "ekd", "prompt": "own_bad:smaller", "prompted_fraction": 1.0},
         "own_bad:smaller: expected a tensor of shape (16, 3, 16, 16), torch.float32, got shape "
         "(16, 3, 16, 15), torch.float32"),
    ],
)  # fmt: skip
def test_own_code_that_does_not_fit_is_one_line(own_folder, tmp_path, options, told):
    (tmp_path / "own_bad.py").write_text(CODE)
    config = tiny(**{"method": "bsm"} | options)
    kind = next(kind for kind in ("prompt", "distillation", "loss") if kind in options)
    call = failure if "endless" in told else complaint
    assert f"{kind} {told}" in call(quiet, config, tmp_path / "run")
    assert "expected a function, or a class of nn.Module, with a name in its file" in complaint(
        quiet, config, tmp_path, loss=lambda x: x
    )


def test_an_own_distillation_is_built_with_its_sizes_by_name(own_folder, tmp_path):
    (tmp_path / "own_sizes.py").write_text(CODE)
    config = tiny(method="bsm", distillation="own_sizes:Turned")
    assert quiet(config, tmp_path / "run").manifest["state"] == "done"


def test_a_run_whose_teacher_is_always_prompted_ends_with_no_feature_kept(tmp_path):
    config = tiny(method="fopro", teacher_views=1, prompted_fraction=1.0, prompt_steps=1)
    features = quiet(config, tmp_path / "run").manifest["teacher_features"]
    assert features["hit_rate"] == 0 and features["needed"] > 0


def test_an_own_loss_may_be_a_module_without_parameters(own_folder, tmp_path):
    (tmp_path / "own_module.py").write_text(CODE)
    found = quiet(tiny(method="bsm", loss="own_module:Weighed"), tmp_path / "run")
    plain = quiet(tiny(method="ce"), tmp_path / "ce")
    assert found.method == "own_module:Weighed" and found.manifest["loss_sha256"]
    # Twice the loss: the first step's is that of cross-entropy times two, and no other.
    ours, theirs = (run.history["loss"].iloc[0] for run in (found, plain))
    assert ours == pytest.approx(2 * theirs, rel=0.1)


def a_run(**options: object) -> Run:
    """Return a run whose manifest has the config as one that was trained."""
    run = run_of()
    return Run(Path("run"), run.manifest | {"config": deciding_options(TrainConfig(**options))})


def test_methods_of_other_terms_are_compared_and_those_of_one_share_its_options():
    ways = [{"method": "", "loss": "ldam"}, {"method": "bsm", "distillation": "kd"},
            {"method": "ekd", "seed": 0}, {"method": "fopro"}]  # fmt: skip
    runs = [a_run(**way) for way in ways]
    check_comparable(runs)
    assert [teacher_of(run) for run in runs] == ["", "builtin", "builtin", "builtin"]
    for changed, words in (
        ({"temperature": 2}, "temperature"),
        ({"distill_weight": 1}, "distill_w"),
    ):
        other = ways[1] | changed | {"seed": 1}
        assert words in complaint(check_comparable, [*runs, a_run(**other)])
    priors = [implicit_prior(run.config) for run in runs]
    assert priors == ["unknown", "uniform", "uniform", "uniform"]


def test_runs_that_draw_otherwise_are_methods_of_their_own():
    ways = [{}, {"sampler": "square-root"}, {"mixup": 0.2}, {"mixup_alpha": 0.1}]
    runs = [a_run(method="ce", **way) for way in ways]
    check_comparable(runs)
    names = ["ce", "ce+square-root-sampler", "ce+mixup", "ce+balanced-mixup"]
    assert [run.method for run in runs] == names
    other = a_run(method="ce", mixup=0.3, seed=1)
    assert "mixup: expected 0.2" in complaint(check_comparable, [*runs, other])
