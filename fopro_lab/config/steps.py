"""The knobs of a student's steps: optimiser, learning rate over time, and when training ends."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fopro_lab.config.base import Config


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
    rate_warmup: float = Field(
        0.0, ge=0, description="first epochs, or a part of one, in which the rate rises linearly"
    )
    rate_floor: float = Field(
        0.0, ge=0, le=1, description="cosine: where it ends, as a share of learning_rate"
    )
    rate_milestones: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="multi-step: epochs after which the rate falls"
    )
    rate_factor: float = Field(0.1, gt=0, le=1, description="multi-step: factor of each fall")
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
        given = self.rate_milestones
        if list(given) != sorted(set(given)) or bool(given) != (self.schedule == "multi-step"):
            raise ValueError(
                "rising rate_milestones with schedule multi-step, and none without, got "
                f"{list(given)} with {self.schedule}"
            )
        return self
