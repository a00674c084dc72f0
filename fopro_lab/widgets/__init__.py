"""Widgets of the notebooks and of the explorer's page."""

from fopro_lab.arguments import check_public
from fopro_lab.widgets.explorer import BandExplorer, open_explorer
from fopro_lab.widgets.ring_sliders import ring_sliders
from fopro_lab.widgets.viewers import PromptViewer, RunComparer

check_public(__name__)
