"""Every knob once: frozen, validated models; `fopro_lab.settings` reads them from text."""

from fopro_lab.config.base import Config
from fopro_lab.config.data import DataConfig, Decoder, Interpolation, SplitRule
from fopro_lab.config.prompts import Objective, PromptConfig, PromptForm
from fopro_lab.config.steps import StepConfig
from fopro_lab.config.teachers import PretrainConfig, ProbeConfig, TeacherConfig
from fopro_lab.config.training import Method, Sampler, TrainConfig

__all__ = [
    "Config",
    "DataConfig",
    "Decoder",
    "Interpolation",
    "Method",
    "Objective",
    "PretrainConfig",
    "ProbeConfig",
    "PromptConfig",
    "PromptForm",
    "Sampler",
    "SplitRule",
    "StepConfig",
    "TeacherConfig",
    "TrainConfig",
]
