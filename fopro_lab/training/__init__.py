"""The act: losses, explorations, training."""

from fopro_lab.training.checking import HeldOut
from fopro_lab.training.distill import distill
from fopro_lab.training.explore import explore
from fopro_lab.training.folders import TrainedRun, run_name
from fopro_lab.training.losses import balanced_softmax_loss, cosine_distance, distillation_loss
from fopro_lab.training.references import natural_distance, reference_of

__all__ = [
    "HeldOut",
    "TrainedRun",
    "balanced_softmax_loss",
    "cosine_distance",
    "distill",
    "distillation_loss",
    "explore",
    "natural_distance",
    "reference_of",
    "run_name",
]
