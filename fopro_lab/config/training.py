"""The knobs of a training run."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from fopro_lab.config.data import DataConfig
from fopro_lab.config.prompts import PromptConfig
from fopro_lab.config.recipes import RECIPES
from fopro_lab.config.steps import StepConfig
from fopro_lab.config.teachers import TeacherConfig

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
        description="side of the picture the student sees, pixels; 0 is image_size",
    )
    epochs: int = Field(10, ge=1, description="passes over the training set")
    batch_size: int = Field(32, ge=2, description="pictures a step")
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
    explore_every: int = Field(
        2, ge=0, description="epochs between two explorations; 0 explores once, before the first"
    )
    prompt_file: str = Field("", description="a saved prompt, kept as it is; empty explores one")
    random_gains: Literal["fixed", "per-picture"] = Field(
        "fixed", description="method random: one arrangement of the gains, or one a picture"
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
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to compute")
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
        if self.rate_warmup >= self.epochs and self.rate_warmup:
            raise ValueError(f"rate_warmup below epochs = {self.epochs}, got {self.rate_warmup:g}")
        milestones = self.rate_milestones
        if milestones and not self.rate_warmup < milestones[0] <= milestones[-1] < self.epochs:
            raise ValueError(
                f"rate_milestones after rate_warmup = {self.rate_warmup:g} and below epochs = "
                f"{self.epochs}, got {list(milestones)}"
            )
        return self
