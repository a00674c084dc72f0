"""An open laboratory for Fourier-prompted knowledge distillation on long-tailed images.

``import fopro_lab as fl`` gives the main names, each imported with its package when first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"
_HOMES = {
    "config": ("TrainConfig",),
    "data": ("open_dataset", "make_split", "pack", "batches"),
    "fourier": ("radial_frequency", "ring_masks", "apply_gain", "ring_energy", "FourierPrompt"),
    "models": ("load_teacher", "wrap_teacher", "Teacher", "build_student"),
    "probing": ("ring_response", "class_band_matrix", "teacher_card"),
    "training": ("explore", "distill", "balanced_softmax_loss", "distillation_loss"),
    "evaluation": ("load_runs", "score", "compare"),
    "widgets": ("BandExplorer", "PromptViewer", "RunComparer"),
    "reports": ("run_plan",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a main name when it is first used: this package alone imports no torch."""
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the main names, too, so that editors complete them."""
    return sorted([*globals(), *_HOME])
