"""Every figure of the laboratory: a table in, axes out. No torch.

Every function refuses a table without rows, or without a column that it reads, by `InputError`;
``ax`` are the axes to draw into, None makes a figure.
"""

from fopro_lab.evaluation import METHOD_LABELS
from fopro_lab.plots.data import plot_class_counts, plot_images, plot_pipeline, plot_spectra
from fopro_lab.plots.probing import (
    plot_class_bands,
    plot_control,
    plot_gain_benefits,
    plot_heat_map,
    plot_preferences,
    plot_ring_response,
    plot_teacher_glyphs,
    plot_teacher_responses,
)
from fopro_lab.plots.prompts import (
    plot_gain,
    plot_mask_history,
    plot_prompt_training,
    plot_radial_gain,
)
from fopro_lab.plots.results import (
    plot_all_pairs,
    plot_changes,
    plot_claim,
    plot_class_recall,
    plot_comparison,
    plot_cost,
    plot_group_recall,
    plot_history,
    plot_priors,
    plot_slopes,
)
from fopro_lab.plots.style import GROUP_COLORS, METHOD_COLORS, save_figure, with_style
