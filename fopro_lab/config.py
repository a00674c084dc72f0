"""Knobs as text: YAML files, ``--set`` words, and the config told back."""

import re
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fopro_lab.errors import InputError

ConfigType = TypeVar("ConfigType", bound="Config")

# Option names of version 0.1 that changed, and what they are called now.
RENAMED = {
    "pictures": "images",
    "probe_pictures": "probe_images",
    "band_pictures": "band_images",
    "heat_pictures": "heat_images",
    "audit_pictures": "audit_images",
    "explore_steps": "prompt_steps",
    "explore_rate": "prompt_learning_rate",
    "explore_every": "prompt_every",
    "explore_check_every": "prompt_check_every",
    "explore_check_pictures": "prompt_check_images",
    "explore_patience": "prompt_patience",
    "rate_warmup": "lr_warmup",
    "rate_floor": "lr_floor",
    "rate_milestones": "lr_milestones",
    "rate_factor": "lr_factor",
    "pins_dir": "presets_dir",
}
# Values of version 0.1 that changed, by today's name of their option.
RENAMED_VALUES = {"random_gains": {"per-picture": "per-image"}}
# Options of version 0.1 that are gone, and the one value that still means what happens now.
REMOVED: dict[str, Any] = {
    "decoder": "exact",
    "checkpoint_epochs": 1,
    "checkpoint_minutes": 10.0,
    "max_skipped": 5,
}


def current_options(values: Mapping[str, Any], *, warn: bool = True) -> dict[str, Any]:
    """Translate options as version 0.1 named them.

    Args:
        values: Option names and values, of this version or of 0.1.
        warn: Say on stderr, a line each, which name is old; off for manifests of old runs.

    Returns:
        Names and values of this version, in the same order.

    Raises:
        InputError: If an option is given under both names.

    Example:
        >>> current_options({"explore_steps": 9, "random_gains": "per-picture"}, warn=False)
        {'prompt_steps': 9, 'random_gains': 'per-image'}
    """
    current: dict[str, Any] = {}
    for name, value in values.items():
        new = RENAMED.get(name, name)
        if new in current or (new != name and new in values):
            raise InputError(f"{name}: is called {new} now, and both are given; leave one out")
        changed = RENAMED_VALUES.get(new, {})
        current[new] = changed.get(value, value) if isinstance(value, str) else value
        if warn and new != name:
            sys.stderr.write(f"fopro: {name} is called {new} now; the old name goes with 0.3\n")
        elif warn and current[new] is not value:
            sys.stderr.write(f"fopro: {new}: '{value}' is called '{current[new]}' now\n")
    return current


class Config(BaseModel):
    """Base of all configs: immutable, no unknown names, nothing infinite or undefined."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def from_mapping(cls: type[ConfigType], values: Mapping[str, Any]) -> ConfigType:
        """Build the config and turn the first problem into one clear line.

        Args:
            values: Option names and values. Names of version 0.1 are taken, too, with a line on
                stderr; an option that is gone is taken at its old default.

        Returns:
            The validated config.

        Raises:
            InputError: For an unknown name (with the nearest known one) or a value out of range.

        Example:
            >>> from fopro_lab.config import TrainConfig
            >>> TrainConfig.from_mapping({"epoch": 3})
            Traceback (most recent call last):
            fopro_lab.errors.InputError: epoch: not a name of TrainConfig; did you mean 'epochs'?
        """
        values = current_options(values)
        for name in [name for name in values if name not in cls.model_fields]:
            if name in REMOVED and values[name] == REMOVED[name]:
                values.pop(name)
            elif name in REMOVED:
                raise InputError(
                    f"{name}: no longer an option, always {REMOVED[name]!r}; got "
                    f"{values[name]!r}; leave it out"
                )
            else:
                near = get_close_matches(str(name), cls.model_fields, n=1)
                hint = f"did you mean '{near[0]}'?" if near else "see `fopro train --print-config`"
                raise InputError(f"{name}: not a name of {cls.__name__}; {hint}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            parts = [str(part) for part in first["loc"] if part != "[key]"]
            name = ".".join(parts) or cls.__name__
            message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
            raise InputError(f"{name}: expected {message}{got}") from None

    @classmethod
    def from_parameters(cls: type[ConfigType], namespace: Mapping[str, Any]) -> ConfigType:
        """Build the config from a notebook's parameters cell.

        Args:
            namespace: Typically ``globals()`` after the parameters cell. Names that are fields
                are taken, and every entry of the mapping ``options``, if there is one.

        Returns:
            The validated config; fields that the notebook does not declare keep their default. A
            declared parameter that is left at its default counts as not given, so that a recipe
            fills it.

        Raises:
            InputError: As of `from_mapping`; or if ``options`` repeats a declared parameter that
                was changed.

        Example:
            >>> from fopro_lab.config import TrainConfig
            >>> epochs, unrelated, options = 3, "x", {"seed": 1}
            >>> config = TrainConfig.from_parameters(
            ...     {"epochs": epochs, "unrelated": unrelated, "options": options})
            >>> config.epochs, config.seed
            (3, 1)
        """
        options = namespace.get("options", {})
        if not isinstance(options, Mapping):
            raise InputError(f"options: expected names and values, got {options!r}")
        options = current_options(options)
        declared = {
            name: namespace[name]
            for name, field in cls.model_fields.items()
            if name in namespace and namespace[name] != field.default
        }
        for name in declared:
            if name in options:
                raise InputError(f"{name}: given twice, as a parameter and in options; give one")
        return cls.from_mapping({**declared, **options})


SplitRule = Literal["auto", "draw", "folds", "long-tail", "isic2019-lt", "hyperkvasir"]
Interpolation = Literal["box", "bilinear", "bicubic", "lanczos"]


class DataConfig(Config):
    """Which images, how they are split, and at what size they are read."""

    dataset: str = Field("phantom", min_length=1, description="a dataset's name, or a path")
    image_column: str = Field("", description="CSV: column of file names; empty finds it by name")
    class_column: str = Field("", description="CSV: column of classes; empty finds it by name")
    group_column: str = Field("", description="CSV: lesion or patient; images of one stay together")
    source_column: str = Field("", description="CSV: scanner or hospital")
    split_column: str = Field(
        "", description="CSV: given split, train, val or test; empty draws one"
    )
    images: int = Field(0, ge=0, description="at most this many, stratified by class; 0 is all")
    unusable: Literal["stop", "leave-out"] = Field(
        "stop", description="images that cannot be read, or that a published split lacks here"
    )
    image_size: int = Field(64, ge=16, le=1024, description="side of the square image, pixels")
    interpolation: Interpolation = Field("bilinear", description="of the resize, antialiased")
    split_rule: SplitRule = Field(
        "auto", description="auto: the benchmark's own, else draw; draw, folds, long-tail, ..."
    )
    split_files: str = Field(
        "", description="folder or file of a published split; empty is the fetched one"
    )
    folds: int = Field(5, ge=2, le=20, description="rules 'folds' and 'hyperkvasir': how many")
    fold: int = Field(1, ge=1, le=20, description="which fold is tested, counted from 1")
    tail_ratio: float = Field(
        0.01, gt=0, le=1, description="rules 'long-tail', 'isic2019-lt': smallest to largest class"
    )
    val_fraction: float = Field(0.15, gt=0, lt=0.5, description="share of each class")
    test_fraction: float = Field(0.25, gt=0, lt=0.6, description="share of each class")
    val_per_class: int = Field(0, ge=0, description="balanced validation: images a class; 0 off")
    test_per_class: int = Field(0, ge=0, description="balanced test: images a class; 0 is off")
    split_seed: int = Field(0, ge=0, description="seed of the split and of the subsample")
    group_rule: Literal["auto", "rank", "count"] = Field(
        "auto", description="head, medium, tail: as published, else thirds by rank; or by count"
    )
    head_above: int = Field(700, ge=1, description="rule 'count': more training images is head")
    tail_below: int = Field(70, ge=1, description="rule 'count': fewer training images is tail")

    @property
    def rule(self) -> str:
        """The split rule, with ``auto`` resolved by the name of the data set.

        Example:
            >>> from fopro_lab.config import DataConfig
            >>> DataConfig(dataset="hyperkvasir").rule, DataConfig(dataset="phantom").rule
            ('hyperkvasir', 'draw')
        """
        if self.split_rule != "auto":
            return self.split_rule
        return self.dataset if self.dataset in ("isic2019-lt", "hyperkvasir") else "draw"


PromptForm = Literal["generator", "shared", "ring", "radial", "image"]
Objective = Literal["statistics", "confidence", "task", "disagreement", "identity"]


class PromptConfig(Config):
    """How the Fourier prompt is built and driven."""

    prompt_form: PromptForm = Field(
        "generator", description="noise to map; shared map; ring; radial waves; of the image"
    )
    prompt_rows: int = Field(16, ge=2, le=256, description="rows of a coarse map")
    prompt_rings: int = Field(8, ge=1, le=64, description="rings of the forms 'ring' and 'image'")
    prompt_waves: int = Field(6, ge=1, le=64, description="waves of 'radial' and 'image'")
    prompt_noise: int = Field(16, ge=1, le=512, description="width of the generator's noise")
    max_log_gain: float = Field(0.7, gt=0, le=3, description="bound s of |log gain|, natural log")
    max_drift: float = Field(
        0.0, ge=0, le=2, description="bound of the teacher's drift, mean 1 - cos; 0 is none"
    )
    objectives: dict[Objective, float] = Field(
        {"statistics": 1.0, "task": 1.0, "identity": 0.1}, description="weight of each objective"
    )
    natural: str = Field(
        "", description="teachers without batch norm: natural images; empty generates some"
    )
    prompt_steps: int = Field(20, ge=1, description="prompt steps in one exploration")
    prompt_learning_rate: float = Field(
        0.01, gt=0, le=1, description="Adam's learning rate of the prompt"
    )
    prompt_check_every: int = Field(
        10, ge=0, description="prompt steps between two checks on held-out images; 0 is never"
    )
    prompt_check_images: int = Field(
        128, ge=1, description="validation images of a check, as balanced as they go"
    )
    prompt_patience: int = Field(
        0, ge=0, description="checks without a better one that end an exploration; 0 is never"
    )

    @model_validator(mode="after")
    def _weights_are_positive(self) -> "PromptConfig":
        if not self.objectives or any(weight < 0 for weight in self.objectives.values()):
            raise ValueError(f"objectives with weights of 0 or more, got {self.objectives}")
        return self


RECIPES: dict[str, dict[str, Any]] = {
    # The release's own commands. They train 100 epochs or 500, by data set, so
    # the number of epochs stays a choice; its student may start from ImageNet's weights.
    "published": {
        "student": "resnet18",
        "image_size": 224,
        "student_size": 0,
        "batch_size": 32,
        "accumulate": 1,
        "optimiser": "adam",
        "learning_rate": 3e-4,
        "weight_decay": 0.0,
        "schedule": "constant",
        "lr_warmup": 0.0,
        "clip_norm": 5.0,
        "label_smoothing": 0.0,
        "ema_decay": 0.0,
        "distill_weight": 3.0,
        "augment": "published",
        "augment_mode": "exact",
        "sampler": "instance",
        "mixup_alpha": 0.0,
    },
}


class StepConfig(Config):
    """How a student's weights are moved."""

    optimiser: Literal["adam", "adamw", "sgd"] = Field("adam", description="adam, adamw or sgd")
    learning_rate: float = Field(3e-4, gt=0, le=10, description="learning rate, at its highest")
    weight_decay: float = Field(
        0.0, ge=0, description="L2 penalty of adam and sgd, decoupled decay of adamw"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    schedule: Literal["constant", "cosine", "multi-step"] = Field(
        "constant", description="learning rate after the warm-up, changed every step"
    )
    lr_warmup: float = Field(
        0.0, ge=0, description="first epochs, or a part of one, in which the rate rises linearly"
    )
    lr_floor: float = Field(
        0.0, ge=0, le=1, description="cosine: where it ends, as a share of learning_rate"
    )
    lr_milestones: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="multi-step: epochs after which the rate falls"
    )
    lr_factor: float = Field(0.1, gt=0, le=1, description="multi-step: factor of each fall")
    clip_norm: float = Field(5.0, gt=0, description="bound of the gradient's norm")
    accumulate: int = Field(
        1, ge=1, description="batches whose gradients make one step; batch norms see each alone"
    )
    sync_batch_norm: bool = Field(
        False, description="batch norms see the batch of all processes, not their own share of it"
    )
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="moving average of the weights, which is then judged; 0 is off"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of every label that is spread evenly over the classes"
    )
    patience: int = Field(
        0, ge=0, description="epochs without a better validation that end the run; 0 is never"
    )

    @model_validator(mode="after")
    def _milestones_rise(self) -> "StepConfig":
        given = self.lr_milestones
        if list(given) != sorted(set(given)) or bool(given) != (self.schedule == "multi-step"):
            raise ValueError(
                "rising lr_milestones with schedule multi-step, and none without, got "
                f"{list(given)} with {self.schedule}"
            )
        return self


Device = Literal["auto", "cpu", "cuda"]


class TeacherConfig(Config):
    """Which frozen network is asked."""

    teacher: str = Field(
        "builtin", min_length=1, description="builtin, timm:NAME, torchvision:NAME"
    )
    weights: str = Field("", description="file with the teacher's weights, safetensors or pickle")
    teacher_size: int = Field(
        0, ge=0, le=1024, description="side of the image the teacher sees, pixels; 0 is its rule"
    )
    teacher_mean: tuple[float, ...] = Field(
        (), description="normalisation; empty is the weights' own"
    )
    teacher_std: tuple[float, ...] = Field(
        (), description="normalisation; empty is the weights' own"
    )
    device: Device = Field("auto", description="where to compute; auto is the GPU if there is one")


class ProbeConfig(TeacherConfig, DataConfig):
    """One teacher card: what a teacher does with each frequency of some images."""

    rings: int = Field(8, ge=1, le=64, description="rings up to 0.5 cycles per pixel")
    gains: tuple[Annotated[float, Field(ge=0, le=4)], ...] = Field(
        (0.0, 0.5, 2.0, 4.0), min_length=1, description="ring response: factors of the amplitudes"
    )
    per_channel: bool = Field(False, description="ring response also of red, green, blue alone")
    probe_images: int = Field(256, ge=1, description="images for the ring response")
    band_gains: tuple[Annotated[float, Field(ge=0, le=4)], ...] = Field(
        (0.0, 2.0), min_length=1, description="class bands: factors of the amplitudes"
    )
    band_images: int = Field(
        0, ge=0, description="test images of each class that are changed, at most; 0 is all"
    )
    cutoffs: tuple[Annotated[float, Field(gt=0, lt=0.7)], ...] = Field(
        (0.0625, 0.125, 0.1875, 0.25, 0.375),
        min_length=1,
        description="low-pass and high-pass ladder, cycles per pixel",
    )
    heat_map: Literal["off", "rings", "blocks", "full"] = Field(
        "blocks", description="Fourier basis heat map; full takes a pass a frequency and sign"
    )
    heat_images: int = Field(32, ge=1, description="test images of the heat map, about")
    heat_block: int = Field(7, ge=1, le=101, description="side of a block, bins, odd")
    student_run: str = Field("", description="run folder of a trained student, asked as the probe")
    resamples: int = Field(1000, ge=20, description="bootstrap resamples of every interval")
    precision: Literal["32-true", "bf16-mixed"] = Field("32-true", description="arithmetic")
    probe_batch: int = Field(64, ge=2, description="images a pass")
    seed: int = Field(0, ge=0, description="seed of drawn images and bootstraps")


class PretrainConfig(Config):
    """Pre-training of the built-in teacher on natural images."""

    natural: str = Field("../shared/data/natural", description="folder with the two zip archives")
    width: int = Field(32, ge=8, le=256, description="channels of the first stage")
    image_size: int = Field(
        32, ge=16, le=32, description="side of the training crop, up to Tiny ImageNet's 32 pixels"
    )
    epochs: int = Field(45, ge=1, description="passes over the images")
    batch_size: int = Field(128, ge=2, description="images a step")
    learning_rate: float = Field(2e-3, gt=0, description="peak of AdamW's one-cycle schedule")
    weight_decay: float = Field(0.05, ge=0, description="AdamW's decoupled decay")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of the uniform label")
    precision: Literal["32-true", "bf16-mixed"] = Field("32-true", description="arithmetic")
    seed: int = Field(0, ge=0, description="seed of weights, order and crops")


Method = Literal["ce", "bsm", "ekd", "fopro", "random"]
Sampler = Literal["instance", "class-balanced", "square-root", "progressive"]


class TrainConfig(StepConfig, PromptConfig, TeacherConfig, DataConfig):
    """One training run: baseline, EKD, FoPro-KD or the control with random gains."""

    recipe: Literal["", "published"] = Field(
        "", description="published: the release's values for all knobs that are not given"
    )
    method: Method = Field("fopro", description="ce, bsm (balanced softmax), ekd, fopro or random")
    student: Literal["small", "resnet18"] = Field(
        "small", description="the network that is trained"
    )
    student_weights: str = Field("", description="safetensors to start from; empty is random")
    student_size: int = Field(
        0,
        ge=0,
        le=1024,
        description="side of the image the student sees, pixels; 0 is image_size",
    )
    epochs: int = Field(10, ge=1, description="passes over the training set")
    batch_size: int = Field(32, ge=2, description="images a step")
    distill_weight: float = Field(3.0, ge=0, description="lambda of the EKD loss")
    augment: Literal["none", "flips", "published"] = Field("published", description="augmentation")
    augment_mode: Literal["fused", "exact"] = Field(
        "fused", description="one warp and one colour matrix, or each published operation"
    )
    sampler: Sampler = Field("instance", description="how often each class is drawn")
    mixup_alpha: float = Field(
        0.0, ge=0, le=10, description="Balanced-MixUp: shape of its Beta; 0 is off"
    )
    prompted_fraction: float = Field(
        0.75, ge=0, le=1, description="share of batches whose teacher input is prompted"
    )
    prompted_decay: float = Field(
        0.0, ge=0, le=1, description="part of that share that is lost, linearly, by the last epoch"
    )
    warmup_epochs: int = Field(0, ge=0, description="first epochs without prompt or exploration")
    prompt_every: int = Field(
        2, ge=0, description="epochs between two explorations; 0 explores once, before the first"
    )
    prompt_file: str = Field("", description="a saved prompt, kept as it is; empty explores one")
    random_gains: Literal["fixed", "per-image"] = Field(
        "fixed", description="method random: one arrangement of the gains, or one an image"
    )
    checkpoint_epochs: int = Field(1, ge=1, description="epochs between two checkpoints")
    checkpoint_minutes: float = Field(
        10.0, ge=0, description="minutes between two checkpoints within an epoch; 0 is none"
    )
    max_skipped: int = Field(
        5, ge=0, description="steps of an epoch whose loss or gradient may be not finite"
    )
    deterministic: bool = Field(
        False, description="only operations that repeat their bits on the same device"
    )
    seed: int = Field(0, ge=0, description="seed of weights, order, augmentation and prompts")
    fold_teacher: bool = Field(
        True, description="put the teacher's batch norms into its convolutions: faster"
    )
    compile_teacher: bool = Field(
        False, description="compile the teacher: seconds at first, faster behind; kept by torch"
    )
    precision: Literal["32-true", "bf16-mixed"] = Field("32-true", description="arithmetic")
    threads: int = Field(0, ge=0, description="CPU threads; 0 is all")

    @model_validator(mode="before")
    @classmethod
    def _recipe_fills_what_is_not_given(cls, values: Any) -> Any:
        name = values.get("recipe") if isinstance(values, Mapping) else None
        # An unknown name is left for the field itself to refuse.
        return {**RECIPES[name], **values} if isinstance(name, str) and name in RECIPES else values

    @model_validator(mode="after")
    def _student_sees_no_more_than_is_read(self) -> "TrainConfig":
        if self.student_size > self.image_size:
            raise ValueError(
                f"student_size up to image_size = {self.image_size}, got {self.student_size}"
            )
        return self

    @model_validator(mode="after")
    def _a_prompt_has_epochs(self) -> "TrainConfig":
        if self.warmup_epochs >= self.epochs and self.method in ("fopro", "random"):
            raise ValueError(
                f"warmup_epochs below epochs = {self.epochs}, got {self.warmup_epochs}"
            )
        return self

    @model_validator(mode="after")
    def _the_rate_changes_within_the_run(self) -> "TrainConfig":
        if self.lr_warmup >= self.epochs and self.lr_warmup:
            raise ValueError(f"lr_warmup below epochs = {self.epochs}, got {self.lr_warmup:g}")
        milestones = self.lr_milestones
        if milestones and not self.lr_warmup < milestones[0] <= milestones[-1] < self.epochs:
            raise ValueError(
                f"lr_milestones after lr_warmup = {self.lr_warmup:g} and below epochs = "
                f"{self.epochs}, got {list(milestones)}"
            )
        return self


class CompareConfig(Config):
    """Comparison of methods over the same test images (notebook 05)."""

    run_dirs: tuple[str, ...] = Field(
        ("../reports/runs",), min_length=1, description="run folders, or folders that hold some"
    )
    baselines: tuple[str, ...] = Field(
        ("bsm", "ekd"), description="methods that the others are compared with"
    )
    resamples: int = Field(1000, ge=20, description="bootstrap resamples of every interval")
    seed: int = Field(0, ge=0, description="seed of the bootstraps")


class ExploreConfig(TeacherConfig, DataConfig):
    """The band explorer (notebook 06): images, teachers and students to choose from."""

    rings: int = Field(8, ge=1, le=64, description="rings up to 0.5 cycles per pixel")
    prompt_file: str = Field("", description="a saved prompt that the sliders start from")
    student_run: str = Field("", description="run folder of a trained student, or a folder of some")
    more_datasets: tuple[str, ...] = Field(
        (), description="further data sets to choose from: names, folders or CSVs"
    )
    more_teachers: tuple[str, ...] = Field(
        (), description="further teachers to choose from: NAME, or NAME=FILE of its weights"
    )
    presets_dir: str = Field("../presets", description="folder that saved presets go to")


class ClaimsConfig(DataConfig):
    """The three claims (notebook 07): methods, teachers and a teacher smaller than its student."""

    run_dirs: tuple[str, ...] = Field(
        ("../reports/runs",), min_length=1, description="run folders, or folders that hold some"
    )
    pairs: tuple[tuple[str, str], ...] = Field(
        (("ekd", "bsm"), ("fopro", "ekd"), ("fopro", "random")),
        description="methods that are compared: method and baseline",
    )
    teachers: dict[str, str] = Field(
        {"builtin": ""}, description="name and file of weights of each teacher that is probed"
    )
    rings: int = Field(8, ge=1, le=64, description="rings up to 0.5 cycles per pixel")
    gains: tuple[Annotated[float, Field(ge=0, le=4)], ...] = Field(
        (0.8, 1.25), min_length=1, description="factors of the amplitudes, near 1"
    )
    probe_images: int = Field(256, ge=1, description="validation images for every teacher")
    device: Device = Field("auto", description="where to compute; auto is the GPU if there is one")
    resamples: int = Field(1000, ge=20, description="bootstrap resamples of every interval")
    seed: int = Field(0, ge=0, description="seed of drawn images and bootstraps")


class _Yaml(yaml.SafeLoader):
    """Reads ``on``, ``off``, ``yes`` and ``no`` as words, as YAML 1.2 does: "off" is a choice."""


_BOOL = "tag:yaml.org,2002:bool"
_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != _BOOL]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(
    _BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Args:
        path: The file.

    Returns:
        Its content; an empty file is an empty mapping.

    Raises:
        InputError: If it is missing, is not YAML, or holds something else.

    Example:
        >>> read_yaml("nowhere.yaml")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.yaml: no such file
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _Yaml)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}: expected YAML, got a syntax error{where}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected names and values, got a {type(content).__name__}")
    return content


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Turn ``--set`` texts into values; ``a.b=1`` sets one entry of the mapping ``a``.

    Args:
        settings: Texts ``name=value``, the value in YAML.

    Returns:
        Names and values.

    Raises:
        InputError: If a text has no ``=`` or its value is not YAML.

    Example:
        >>> parse_settings(["epochs=3", "dataset=~/my images", "objectives.task=0.5"])
        {'epochs': 3, 'dataset': '~/my images', 'objectives': {'task': 0.5}}
        >>> parse_settings(["heat_map=off", "per_channel=true"])
        {'heat_map': 'off', 'per_channel': True}
    """
    values: dict[str, Any] = {}
    for text in settings:
        name, equals, raw = text.partition("=")
        if not equals or not name:
            raise InputError(f"--set: expected name=value, got '{text}'")
        try:
            value = yaml.load(raw, _Yaml) if raw else ""
        except (yaml.YAMLError, ValueError):
            value = raw
        value = raw if value is None else value
        *parents, leaf = name.strip().split(".")
        target = values
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise InputError(f"--set: {name}: '{parent}' is set to a plain value as well")
        target[leaf] = value
    return values


def merged(
    base: Mapping[str, Any], top: Mapping[str, Any], *, kind: type[Config]
) -> dict[str, Any]:
    """Put settings on top of a file's values; a mapping is merged entry by entry.

    Args:
        base: Names and values, for example of a YAML file.
        top: What wins, for example ``--set``.
        kind: Whose defaults a mapping starts from where ``base`` says nothing.

    Returns:
        Names and values.

    Example:
        >>> from fopro_lab.config import PromptConfig
        >>> merged({}, {"objectives": {"task": 0.5}}, kind=PromptConfig)["objectives"]
        {'statistics': 1.0, 'task': 0.5, 'identity': 0.1}
    """
    values = dict(base)
    for name, value in top.items():
        if isinstance(value, Mapping):
            field = kind.model_fields.get(name)
            start = values.get(name, field.default if field is not None else {})
            value = {**start, **value} if isinstance(start, Mapping) else value
        values[name] = value
    return values


def explained(config: Config) -> str:
    """Print a config as YAML, each knob with its meaning behind it; it can be read back.

    Example:
        >>> from fopro_lab.config import TeacherConfig
        >>> explained(TeacherConfig()).splitlines()[0]
        'teacher: builtin  # builtin, timm:NAME, torchvision:NAME'
    """
    lines = []
    for name, value in config.model_dump(mode="json").items():
        text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
        lines.append(f"{name}: {text}  # {type(config).model_fields[name].description}")
    return "\n".join(lines)
