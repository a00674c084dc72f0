"""Training: losses, prompt training, and the distillation of students."""

from fopro_lab.arguments import check_public
from fopro_lab.training.fitted_head import explore_fitted
from fopro_lab.training.losses import balanced_softmax_loss, cosine_distance, distillation_loss
from fopro_lab.training.refine import refine
from fopro_lab.training.run_folder import TrainedRun, run_name
from fopro_lab.training.setup import is_first
from fopro_lab.training.statistics import natural_distance, reference_of
from fopro_lab.training.train import distill
from fopro_lab.training.train_prompt import HeldOut, PromptedTeacher, draw_held_out, explore

check_public(__name__)
