"""Options: every one written once, with its default, its range and its meaning."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field, field_validator, model_validator

from fopro_lab.io import home_folder
from fopro_lab.options import Config, option

Interpolation = Literal["box", "bilinear", "bicubic", "lanczos"]
_Published = Literal["isic2019-lt", "hyperkvasir", "balanced-mixup", "monica"]
SplitRule = Literal["auto", "draw", "folds", "long-tail", "folds-long-tail", _Published]
PromptForm = Literal["generator", "shared", "ring", "radial"]
Objective = Literal["statistics", "task", "spectrum", "disagreement", "identity"]
Method = Literal["", "ce", "bsm", "ekd", "fopro", "random"]
Sampler = Literal["instance", "class-balanced", "square-root", "progressive"]
Augmentation = Literal["none", "flips", "published"]
AugmentMode = Literal["fused", "exact"]
Device = Literal["auto", "cpu", "cuda"]
Schedule = Literal["constant", "cosine"]
Gains = Annotated[tuple[Annotated[float, Field(ge=0, le=4)], ...], Field(min_length=1)]
_DEFAULT = Field(validate_default=True)
_IN_RUNS = AfterValidator(lambda given: given or (str(home_folder("runs")),))
_IN_PRESETS = AfterValidator(lambda given: given or str(home_folder("presets")))
Folders = Annotated[tuple[str, ...], _DEFAULT, _IN_RUNS]
Presets = Annotated[str, _DEFAULT, _IN_PRESETS]
Objectives = dict[Objective, Annotated[float, Field(ge=0)]]
OBJECTIVES: dict[Objective, float] = {"statistics": 1.0, "task": 1.0, "identity": 0.1}
CLAIMS = (("ekd", "bsm"), ("fopro", "ekd"), ("fopro", "random"))
GroupRule = Literal["auto", "rank", "count"]
Recipe = Literal["", "published", "small"]
Select = Literal["auto", "best", "last", "ema"]
RandomGains = Literal["fixed", "per-view"]
Switch = Literal["auto", "on", "off"]
Precision = Literal["auto", "32-true", "bf16-mixed"]
TeacherPrecision = Literal["auto", "float32", "bfloat16", "float16"]
HeatMap = Literal["off", "blocks", "full"]
Prior = str | dict[str, float]


class Parts(NamedTuple):
    """What a method is made of: names that this package knows, or the user's own."""

    loss: str
    distillation: str = "none"
    prompt: str = "none"

    @property
    def label(self) -> str:
        """The preset that these parts are, else their names: ``ldam``, ``bsm+kd``."""
        named = {parts: name for name, parts in PRESETS.items()}
        used = (self.loss, *(part for part in self[1:] if part != "none"))
        return named.get(self, "+".join(used))

    @property
    def is_taught(self) -> bool:
        """Whether there is a teacher."""
        return self.distillation != "none"

    @property
    def learns_prompt(self) -> bool:
        """Whether a Fourier prompt is trained, or read from a file."""
        return self.prompt in ("fopro", "random")


PRESETS = {
    **{"ce": Parts("ce"), "bsm": Parts("bsm"), "ekd": Parts("bsm", "ekd")},
    **{prompt: Parts("bsm", "ekd", prompt) for prompt in ("fopro", "random")},
}
# The benchmarks' weights of each distillation where none is given, see docs/method.md.
WEIGHTS = {"none": 3.0, "ekd": 3.0, "kd": 9.0, "dkd": 1.0, "fitnet": 100.0, "rkd": 1.0, "sp": 3e3}
_WEIGHTS = ", ".join(f"{name} {weight:g}" for name, weight in WEIGHTS.items() if name != "none")
NAMES: dict[str, tuple[str, ...]] = {
    "loss": ("ce", "bsm", "logit-adjustment", "focal", "class-balanced", "ldam", "ldam-drw"),
    "distillation": tuple(WEIGHTS),
    "prompt": ("none", "fopro", "random", "vptta"),
}
USED_BY = {  # of these options, which named parts take them
    "logit_tau": {"logit-adjustment"},
    "focal_gamma": {"focal"},
    "effective_beta": {"class-balanced", "ldam-drw"},
    "temperature": {"kd", "dkd"},
    **{name: {"dkd"} for name in ("dkd_alpha", "dkd_beta")},
}
METHOD_OPTIONS = (*Parts._fields, *USED_BY)


def parts_of(options: Mapping[str, Any]) -> Parts:
    """Resolve the method of some options: given parts go before those of the preset."""
    name = options.get("method", "fopro")
    preset = PRESETS.get(name, Parts("")) if isinstance(name, str) else Parts("")
    return Parts(*(options.get(part) or getattr(preset, part) for part in Parts._fields))


def unused_options(config: "TrainConfig", *, takes: Iterable[str] = ()) -> list[str]:
    """Say of each option of `USED_BY` and two more that it is set, and that no part uses it.

    It is not part of the config's own checks, so that old runs can still be read. ``takes`` are
    options that the user's own functions take.
    """
    used = {option for option, names in USED_BY.items() if names & {*config.parts}} | {*takes}
    used |= {"prompt_file"} if config.parts.learns_prompt else set()
    # A plan of version 0.1 gives one weight to all of its methods, by their presets' names.
    alone = config.method in ("ce", "bsm") and config.parts == PRESETS[config.method]
    used |= {"distill_weight"} if config.parts.is_taught or alone else set()
    return [
        f"{name}: expected none, as {config.parts.label} does not use it, got {value}"
        for name in (*USED_BY, "prompt_file", "distill_weight")
        if name not in used
        and (value := getattr(config, name)) != type(config).model_fields[name].default
    ]


def is_called(name: str) -> bool:
    """Tell whether a name is ``module:function``, the user's own code."""
    place, _, function = name.partition(":")
    identifiers = [*place.split("."), function]
    return place not in ("timm", "torchvision") and all(map(str.isidentifier, identifiers))


def _part(kind: str, meaning: str) -> Any:
    return option("", f"{meaning}; empty: as method says", examples=[*NAMES[kind], "module:name"])


class DataConfig(Config):
    """Which images, how they are split, and at what size they are read."""

    dataset: str = option("phantom", "a dataset's name, or a path", min_length=1)
    image_column: str = option("", "CSV: column of file names; empty finds it by name")
    class_column: str = option("", "CSV: column of classes; empty finds it by name")
    group_column: str = option("", "CSV: lesion or patient; images of one stay together")
    source_column: str = option("", "CSV: scanner or hospital")
    split_column: str = option("", "CSV: given split; empty finds it by name, none draws one")
    image_dir: str = option("", "CSV: folder of its images; empty is the dataset's")
    labels_from: Literal["auto", "folders"] = option("auto", "folders: also beside a table")
    multi_label: Literal["stop", "first", "leave-out"] = option("stop", "images of several classes")
    unclear_split: Literal["stop", "leave-out"] = option("stop", "rows without train, val or test")
    test_fold: str = option("", "CSV: value of the column of folds that is tested")
    bit_depth: int = option(0, "bits used in 16-bit files; 0: by their values", ge=0, le=16)
    images: int = option(0, "at most this many, stratified by class; 0 is all", ge=0)
    unusable: Literal["stop", "leave-out"] = option("stop", "images that are missing or unreadable")
    image_size: int = option(64, "side of the square image, pixels", ge=16, le=1024)
    interpolation: Interpolation = option("bilinear", "of the resize, antialiased")
    split_rule: SplitRule = option("auto", "auto: the benchmark's own, else draw")
    split_files: str = option("", "folder or file of a published split; empty is the fetched one")
    folds: int = option(5, "number of folds, for the rules that have some", ge=2, le=20)
    fold: int = option(1, "which fold is tested, counted from 1", ge=1, le=20)
    tail_ratio: float = option(0.01, "long-tail rules: smallest to largest class", gt=0, le=1)
    val_fraction: float = option(0.15, "validation share of each class", gt=0, lt=0.5)
    test_fraction: float = option(0.25, "test share of each class", gt=0, lt=0.6)
    val_per_class: int = option(0, "balanced validation: images per class; 0 is off", ge=0)
    test_per_class: int = option(0, "balanced test: images per class; 0 is off", ge=0)
    split_seed: int = option(0, "seed of the split and of the subsample", ge=0)
    group_rule: GroupRule = option("auto", "rank: thirds; count: 700 and 70; auto: as published")

    @property
    def rule(self) -> str:
        """The split rule, with ``auto`` resolved by the name of the data set."""
        if self.split_rule != "auto":
            return self.split_rule
        return self.dataset if self.dataset in ("isic2019-lt", "hyperkvasir") else "draw"


class TeacherConfig(Config):
    """Which frozen teacher, and where it computes."""

    teacher: str = option("builtin", "builtin, timm:NAME, module:function, ...", min_length=1)
    weights: str = option("", "teacher's weights: safetensors, pickle, folder")
    teacher_size: int = option(0, "side of its images, pixels; 0 is its own rule", ge=0, le=1024)
    teacher_mean: tuple[float, ...] = option((), "normalisation; empty is the weights' own")
    teacher_std: tuple[float, ...] = option((), "normalisation; empty is the weights' own")
    device: Device = option("auto", "where to compute; auto is the GPU if there is one")


class PromptConfig(Config):
    """How the Fourier prompt is built and trained."""

    prompt_form: PromptForm = option("generator", "generator: of noise; else one gain for all")
    prompt_rows: int = option(16, "rows of the coarse gain map", ge=2, le=256)
    prompt_noise: int = option(16, "width of the generator's noise", ge=1, le=512)
    max_log_gain: float = option(0.7, "largest |ln gain|; 0.7 is a gain of 0.5 to 2", gt=0, le=3)
    max_drift: float = option(0.0, "largest drift of features, mean 1 - cos; 0: any", ge=0, le=2)
    objectives: Objectives = option(OBJECTIVES, "weight of each objective", min_length=1)
    natural: str = option("", "natural images for teachers without batch norm; empty makes some")
    reference: str = option("", "objective spectrum: images to resemble; empty is natural ones")
    prompt_steps: int = option(20, "steps of one prompt training", ge=1)
    prompt_learning_rate: float = option(0.01, "Adam's learning rate of the prompt", gt=0, le=1)
    prompt_check_every: int = option(10, "steps between held-out checks; 0 is never", ge=0)
    prompt_check_images: int = option(128, "validation images of a check, about balanced", ge=1)


class StepConfig(Config):
    """How the student's weights are updated."""

    optimiser: Literal["adam", "adamw", "sgd"] = option("adam", "optimiser of the student")
    learning_rate: float = option(3e-4, "learning rate, at its highest", gt=0, le=10)
    weight_decay: float = option(0.0, "L2 penalty of adam and sgd, decoupled decay of adamw", ge=0)
    momentum: float = option(0.9, "momentum of sgd", ge=0, lt=1)
    schedule: Schedule = option("constant", "learning rate after the warm-up, set every step")
    lr_warmup: float = option(0.0, "epochs, or part of one, of linear warm-up", ge=0)
    clip_norm: float = option(5.0, "bound of the gradient's norm", gt=0)
    accumulate: int = option(1, "batches whose gradients make one step", ge=1)
    sync_batch_norm: bool = option(False, "batch norms see the batch of all processes")
    ema_decay: float = option(0.0, "evaluated moving average of weights; 0 is off", ge=0, lt=1)
    label_smoothing: float = option(0.0, "share of a label spread over all classes", ge=0, lt=1)


# The release's own commands. They train 100 epochs or 500, by data set, so the number of epochs
# stays a choice; its student may start from ImageNet's weights.
# fmt: off
RECIPES: dict[str, dict[str, Any]] = {"published": {
    "student": "resnet18", "image_size": 224, "student_size": 0,
    "batch_size": 32, "accumulate": 1, "sampler": "instance", "mixup_alpha": 0.0,
    "augment": "published", "augment_mode": "exact",
    "optimiser": "adam", "learning_rate": 3e-4, "weight_decay": 0.0, "clip_norm": 5.0,
    "schedule": "constant", "lr_warmup": 0.0, "ema_decay": 0.0,
    "label_smoothing": 0.0,
}, "small": {  # a student trained to the end on a CPU, and a teacher that sees detail
    "student": "small", "image_size": 128, "student_size": 64,
    "batch_size": 64, "epochs": 20,
    "optimiser": "adamw", "learning_rate": 2e-3, "weight_decay": 0.05,
    "schedule": "cosine", "lr_warmup": 1.0, "precision": "auto", "threads": 1,
}}
# fmt: on


class TrainConfig(StepConfig, PromptConfig, TeacherConfig, DataConfig):
    """One training run (notebooks 03 and 04): a loss, a distillation and a prompt."""

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES
    recipe: Recipe = option("", "defaults; published: the release's, small: 20 epochs on a CPU")
    method: Method = option("fopro", "preset of the three; ekd is bsm x ekd, fopro prompts it")
    loss: str = _part("loss", "of the classes")
    distillation: str = _part("distillation", "what the teacher gives")
    prompt: str = _part("prompt", "before the teacher; random moves the learned gains")
    logit_tau: float = option(1.0, "logit-adjustment: strength of the prior", ge=0)
    focal_gamma: float = option(2.0, "focal: how much sure images count less", ge=0)
    effective_beta: float = option(0.9999, "class-balanced, ldam-drw; 0: no weights", ge=0, lt=1)
    temperature: float = option(4.0, "kd, dkd: of student's and teacher's logits", gt=0)
    dkd_alpha: float = option(1.0, "dkd: weight of the target class", ge=0)
    dkd_beta: float = option(8.0, "dkd: weight of the other classes", ge=0)
    student: str = option("small", "the network that is trained: small, resnet18 or timm:NAME")
    student_weights: str = option("", "file of weights to start from; empty is random")
    student_size: int = option(0, "side of its images, pixels; 0 is image_size", ge=0, le=1024)
    epochs: int = option(10, "passes over the training set", ge=1)
    batch_size: int = option(32, "images per batch", ge=2)
    select: Select = option("auto", "epoch kept: best, last, ema; auto: best, of cosine the last")
    distill_weight: float = option(3.0, f"lambda, by default {_WEIGHTS}", ge=0)
    augment: Augmentation = option("published", "augmentation")
    augment_mode: AugmentMode = option("fused", "exact: each published operation")
    teacher_views: int = option(0, "views per image whose features are kept; 0: new ones", ge=0)
    sampler: Sampler = option("instance", "how often each class is drawn")
    mixup: float = option(0.0, "mixup of images drawn alike: shape of its Beta", ge=0, le=10)
    mixup_alpha: float = option(0.0, "Balanced-MixUp: shape of its Beta; 0 is off", ge=0, le=10)
    prompted_fraction: float = option(0.75, "share of batches with a prompted teacher", ge=0, le=1)
    prompted_decay: float = option(0.0, "part of that share lost by the last epoch", ge=0, le=1)
    warmup_epochs: int = option(0, "first epochs without a prompt", ge=0)
    prompt_every: int = option(2, "epochs between prompt trainings; 0: one, at the start", ge=0)
    prompt_file: str = option("", "a saved prompt, used unchanged; empty trains one")
    random_gains: RandomGains = option("fixed", "shuffled once per run, or per view for all seeds")
    deterministic: bool = option(False, "same bits in every run on the same device, slower")
    seed: int = option(0, "seed of weights, order, augmentation and prompts", ge=0)
    compile: Switch = option("auto", "torch.compile; auto: where it pays (docs/cluster.md)")
    resident: Switch = option("auto", "images in GPU memory; auto: up to half of what is free")
    teacher_precision: TeacherPrecision = option("auto", "of the teacher; auto: as precision")
    precision: Precision = option("32-true", "auto: bf16-mixed where the hardware has units for it")
    threads: int = option(0, "CPU threads; 0 is all", ge=0)

    @property
    def keeps(self) -> Literal["best", "last", "ema"]:
        """What ``select`` means with this schedule."""
        if self.select != "auto":
            return self.select
        # A few validation images of rare classes choose an epoch badly: the end of a falling
        # learning rate is better.
        return "best" if self.schedule != "cosine" else "ema" if self.ema_decay else "last"

    @property
    def parts(self) -> Parts:
        """Loss, distillation and prompt, with the preset's where they are not given."""
        return parts_of({"method": self.method, **{n: getattr(self, n) for n in Parts._fields}})

    @field_validator(*Parts._fields)
    @classmethod
    def _is_known(cls, name: str, about: Any) -> str:
        known = NAMES[about.field_name]
        if name and name not in known and not is_called(name):
            raise ValueError(f"{', '.join(known)} or module:name, got '{name}'")
        return name

    @model_validator(mode="wrap")
    @classmethod
    def _fill(cls, values: Any, build: Any) -> Any:
        """Fill what a recipe sets, and the weight that belongs to a distillation."""
        if not isinstance(values, Mapping):
            return build(values)
        # An unknown recipe is left for the field itself to refuse.
        values = {**RECIPES.get(str(values.get("recipe")), {}), **values}
        weight = {"distill_weight": WEIGHTS.get(str(parts_of(values).distillation), 1.0)}
        config = build({**weight, **values})
        if "distill_weight" not in values:  # a copy with another distillation has another weight
            config.model_fields_set.discard("distill_weight")
        return config

    @model_validator(mode="after")
    def _check_together(self) -> "TrainConfig":
        below = f"below epochs = {self.epochs}"
        if not re.fullmatch("small|resnet18|timm:.+", self.student):
            raise ValueError(f"student small, resnet18 or timm:NAME, got '{self.student}'")
        if self.student_size > self.image_size:
            side = self.image_size
            raise ValueError(f"student_size up to image_size = {side}, got {self.student_size}")
        if self.mixup and self.mixup_alpha:
            raise ValueError(f"mixup = 0 with mixup_alpha, got {self.mixup:g}")
        if self.teacher_views and (self.mixup or self.mixup_alpha):
            rule = "teacher_views = 0 with mixup or mixup_alpha, as no two mixed images are alike"
            raise ValueError(f"{rule}, got {self.teacher_views}")
        if self.random_gains == "per-view" and not self.teacher_views:
            raise ValueError("teacher_views above 0 with random_gains=per-view, got 0")
        if self.warmup_epochs >= self.epochs and self.parts.prompt != "none":
            raise ValueError(f"warmup_epochs {below}, got {self.warmup_epochs}")
        if self.lr_warmup >= self.epochs:
            raise ValueError(f"lr_warmup {below}, got {self.lr_warmup:g}")
        if self.keeps == "ema" and not self.ema_decay:
            raise ValueError("ema_decay above 0 with select=ema, got 0")
        if self.keeps == "last" and self.ema_decay:
            raise ValueError("select=ema or best with ema_decay, got last")
        self._check_parts()
        return self

    def _check_parts(self) -> None:
        """Refuse parts of a method that make no sense together."""
        loss, distillation, prompt = self.parts
        problem = ""
        if not loss:
            problem = "a loss with method '', got none"
        elif distillation == "none" and prompt != "none":
            problem = f"a distillation with prompt {prompt}, which is for its teacher, got none"
        elif loss == "ldam-drw" and self.epochs < 5:  # none comes after four fifths
            problem = f"5 epochs or more with loss ldam-drw, got {self.epochs}; ldam needs no more"
        elif distillation == "rkd" and self.batch_size < 3:
            problem = f"batch_size 3 or more with distillation rkd, got {self.batch_size}"
        elif distillation == "dkd" and (self.mixup or self.mixup_alpha):
            problem = "no mixup with distillation dkd, which needs one class per image"
        elif self.prompt_file and prompt not in ("none", "fopro", "random"):
            problem = f"prompt fopro or random with prompt_file, got {prompt}"
        elif self.parts.learns_prompt and self.objectives.get("disagreement"):
            if distillation != "ekd" and not is_called(distillation):
                problem = f"distillation ekd with objective disagreement, got {distillation}"
        if problem:
            raise ValueError(problem)


class ProbeConfig(TeacherConfig, DataConfig):
    """One teacher card (notebook 02): what a teacher does with each frequency of some images."""

    rings: int = option(8, "rings up to 0.5 cycles per pixel", ge=1, le=64)
    gains: Gains = option((0.0, 0.5, 2.0, 4.0), "ring response: factors of amplitudes")
    probe_images: int = option(256, "images for the ring response", ge=1)
    band_gains: Gains = option((0.0, 2.0), "class bands: factors of amplitudes")
    band_images: int = option(0, "class bands: most test images per class; 0 is all", ge=0)
    heat_map: HeatMap = option("blocks", "Fourier basis heat map; full: two passes per frequency")
    heat_images: int = option(32, "test images of the heat map, about", ge=1)
    student_run: str = option("", "run folder of a trained student, as a second classifier")
    resamples: int = option(1000, "bootstrap resamples of every interval", ge=20)
    seed: int = option(0, "seed of drawn images and bootstraps", ge=0)


class CardsConfig(Config):
    """Teachers' cards side by side (notebook 08)."""

    cards: tuple[str, ...] = option((), "folders of two cards or more")
    seed: int = option(0, "seed of resamples, halves and permutations", ge=0)


class CompareConfig(Config):
    """Comparison of methods over the same test images (notebook 05)."""

    run_dirs: Folders = option((), "run folders, or folders that hold some; empty: runs")
    baselines: tuple[str, ...] = option(("bsm", "ekd"), "methods the others are compared with")
    resamples: int = option(1000, "bootstrap resamples of every interval", ge=20)
    seed: int = option(0, "seed of the bootstraps", ge=0)


RefineHow = Literal["", "logit-adjustment", "tau-norm", "crt", "lws", "soup", "ensemble", "tta"]
_RETRAIN = {"epochs", "learning_rate", "batch_size"}
_USED = {"logit-adjustment": {"tau"}, "tau-norm": {"tau"}, "tta": {"flips"}}
_USED |= {"crt": _RETRAIN, "lws": _RETRAIN}  # the options that each has a use for


class RefineConfig(Config):
    """One refinement of finished runs (`fopro refine`)."""

    how: RefineHow = option("", "what is done; soup and ensemble take several runs")
    tau: float = option(-1.0, "strength; -1 chooses it on validation", ge=-1, le=10)
    epochs: int = option(10, "crt, lws: passes over the training set", ge=1)
    learning_rate: float = option(0.025, "crt, lws: of SGD, falls to 0", gt=0, le=10)
    batch_size: int = option(64, "crt, lws: images per batch", ge=2)
    flips: Literal["horizontal", "both"] = option("both", "tta: left-right, or up-down too")
    device: Device = option("auto", "where to compute; auto is the GPU if there is one")

    @property
    def used(self) -> dict[str, Any]:
        """The options that ``how`` has a use for, with their values."""
        return {name: getattr(self, name) for name in sorted(_USED.get(self.how, ()))}

    @property
    def flipped(self) -> tuple[tuple[int, ...], ...]:
        """The dimensions of a batch along which each pass of ``tta`` flips it."""
        return ((), (3,)) if self.flips == "horizontal" else ((), (3,), (2,), (2, 3))

    @model_validator(mode="after")
    def _check_use(self) -> "RefineConfig":
        for name in type(self).model_fields.keys() - {"how", "device", *self.used}:
            if self.how and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"no {name} with how={self.how}, which has no use for it")
        if -1 < self.tau < 0:
            raise ValueError(f"tau of 0 or more, or -1, got {self.tau:g}")
        return self


class PredictConfig(Config):
    """Predictions of new images by a trained student (`fopro predict`)."""

    coverage: float = option(0.9, "share of each class's images whose set holds it", gt=0, lt=1)
    prior: Prior = option("", "class shares: uniform, training, or prior.NAME=SHARE of each")
    bit_depth: int = option(0, "bits used in 16-bit files; 0: as in training", ge=0, le=16)
    device: Device = option("auto", "where to compute; auto is the GPU if there is one")


class ExploreConfig(TeacherConfig, DataConfig):
    """The band explorer (notebook 06): images, teachers and students to choose from."""

    rings: int = option(8, "rings up to 0.5 cycles per pixel", ge=1, le=64)
    prompt_file: str = option("", "a saved prompt that the sliders start from")
    student_run: str = option("", "run folder of a trained student, or a folder of some")
    more_datasets: tuple[str, ...] = option((), "more data sets to choose from: names or paths")
    more_teachers: tuple[str, ...] = option((), "more teachers: NAME, or NAME=FILE of weights")
    presets_dir: Presets = option("", "folder of saved presets; empty: presets")


class ClaimsConfig(DataConfig):
    """The three claims (notebook 07)."""

    run_dirs: Folders = option((), "run folders, or folders that hold some; empty: runs")
    pairs: tuple[tuple[str, str], ...] = option(CLAIMS, "compared: method and baseline")
    teachers: dict[str, str] = option({"builtin": ""}, "probed: name and file of weights")
    rings: int = option(8, "rings up to 0.5 cycles per pixel", ge=1, le=64)
    gains: Gains = option((0.8, 1.25), "factors of the amplitudes, near 1")
    probe_images: int = option(256, "validation images for every teacher", ge=1)
    device: Device = option("auto", "where to compute; auto is the GPU if there is one")
    resamples: int = option(1000, "bootstrap resamples of every interval", ge=20)
    seed: int = option(0, "seed of drawn images and bootstraps", ge=0)
