"""The knobs of prompts."""

from typing import Literal

from pydantic import Field, model_validator

from fopro_lab.config.base import Config

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
        "", description="teachers without batch norm: natural pictures; empty generates some"
    )
    explore_steps: int = Field(20, ge=1, description="prompt steps in one exploration")
    explore_rate: float = Field(0.01, gt=0, le=1, description="Adam's learning rate of the prompt")
    explore_check_every: int = Field(
        10, ge=0, description="prompt steps between two checks on held-out pictures; 0 is never"
    )
    explore_check_pictures: int = Field(
        128, ge=1, description="validation pictures of a check, as balanced as they go"
    )
    explore_patience: int = Field(
        0, ge=0, description="checks without a better one that end an exploration; 0 is never"
    )

    @model_validator(mode="after")
    def _weights_are_positive(self) -> "PromptConfig":
        if not self.objectives or any(weight < 0 for weight in self.objectives.values()):
            raise ValueError(f"objectives with weights of 0 or more, got {self.objectives}")
        return self
