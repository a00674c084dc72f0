"""Every figure of the laboratory: a table in, axes out. Nothing is computed here, no torch."""

from fopro_lab.lab.figures.auditing import (
    plot_checkup,
    plot_class_sources,
    plot_leaks,
    plot_pairs,
)
from fopro_lab.lab.figures.bench import plot_ratios
from fopro_lab.lab.figures.claims import plot_claim
from fopro_lab.lab.figures.dataset import plot_class_counts, plot_pictures, plot_spectra
from fopro_lab.lab.figures.gains import plot_class_gains, plot_gain, plot_radial_gain
from fopro_lab.lab.figures.heatmaps import plot_heat_map
from fopro_lab.lab.figures.ladders import plot_ladder, plot_phases
from fopro_lab.lab.figures.pipeline import plot_pipeline
from fopro_lab.lab.figures.rings import (
    plot_channel_response,
    plot_class_bands,
    plot_ring_response,
)
from fopro_lab.lab.figures.sources import plot_fingerprint
from fopro_lab.lab.figures.style import (
    GROUP_COLORS,
    METHOD_COLORS,
    METHOD_LABELS,
    in_house_style,
    save_figure,
)
from fopro_lab.lab.figures.teachers import (
    plot_preferences,
    plot_teacher_bands,
    plot_teacher_responses,
)
from fopro_lab.lab.figures.training import plot_exploration, plot_history
from fopro_lab.lab.figures.verdicts import plot_class_recall, plot_comparison, plot_group_recall

__all__ = [
    "GROUP_COLORS",
    "METHOD_COLORS",
    "METHOD_LABELS",
    "in_house_style",
    "plot_channel_response",
    "plot_checkup",
    "plot_claim",
    "plot_class_bands",
    "plot_class_counts",
    "plot_class_gains",
    "plot_class_recall",
    "plot_class_sources",
    "plot_comparison",
    "plot_exploration",
    "plot_fingerprint",
    "plot_gain",
    "plot_group_recall",
    "plot_heat_map",
    "plot_history",
    "plot_ladder",
    "plot_leaks",
    "plot_pairs",
    "plot_phases",
    "plot_pictures",
    "plot_pipeline",
    "plot_preferences",
    "plot_radial_gain",
    "plot_ratios",
    "plot_ring_response",
    "plot_spectra",
    "plot_teacher_bands",
    "plot_teacher_responses",
    "save_figure",
]
