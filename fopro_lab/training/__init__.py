"""The act: losses, explorations, training."""

from fopro_lab.training.checking import HeldOut, draw_held_out
from fopro_lab.training.class_gains import class_gains
from fopro_lab.training.distill import distill
from fopro_lab.training.drifts import prompt_drifts
from fopro_lab.training.explore import explore
from fopro_lab.training.folders import TrainedRun, run_name
from fopro_lab.training.losses import balanced_softmax_loss, cosine_distance, distillation_loss
from fopro_lab.training.prompted import PromptedTeacher
from fopro_lab.training.references import natural_distance, reference_of
from fopro_lab.training.starting import is_first

__all__ = [
    "HeldOut",
    "PromptedTeacher",
    "TrainedRun",
    "balanced_softmax_loss",
    "class_gains",
    "cosine_distance",
    "distill",
    "distillation_loss",
    "draw_held_out",
    "explore",
    "is_first",
    "natural_distance",
    "prompt_drifts",
    "reference_of",
    "run_name",
]
