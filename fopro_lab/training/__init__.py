"""The act: losses, explorations, training."""

from fopro_lab.training.distill import distill
from fopro_lab.training.explore import batch_norm_distance, explore
from fopro_lab.training.folders import TrainedRun, run_name
from fopro_lab.training.losses import balanced_softmax_loss, cosine_distance, distillation_loss

__all__ = [
    "TrainedRun",
    "balanced_softmax_loss",
    "batch_norm_distance",
    "cosine_distance",
    "distill",
    "distillation_loss",
    "explore",
    "run_name",
]
