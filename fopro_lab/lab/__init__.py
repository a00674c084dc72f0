"""The bench: figures, widgets, notebooks and reports.

Names are imported when they are asked for: a report's processes need neither torch nor seaborn,
and each start would pay for both.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fopro_lab.lab.reports import run_plan
    from fopro_lab.lab.widgets.band_explorer import BandExplorer
    from fopro_lab.lab.widgets.dataset_chooser import DatasetChooser, open_explorer
    from fopro_lab.lab.widgets.prompt_viewer import PromptViewer
    from fopro_lab.lab.widgets.run_comparer import RunComparer

__all__ = [
    "BandExplorer",
    "DatasetChooser",
    "PromptViewer",
    "RunComparer",
    "open_explorer",
    "run_plan",
]

_HOMES = {
    "BandExplorer": "fopro_lab.lab.widgets.band_explorer",
    "DatasetChooser": "fopro_lab.lab.widgets.dataset_chooser",
    "PromptViewer": "fopro_lab.lab.widgets.prompt_viewer",
    "RunComparer": "fopro_lab.lab.widgets.run_comparer",
    "open_explorer": "fopro_lab.lab.widgets.dataset_chooser",
    "run_plan": "fopro_lab.lab.reports",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fopro_lab.lab' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
