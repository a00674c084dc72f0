"""Drawings of the explorer in the browser: numbers and PNG images in, moves of the hand out."""

from pathlib import Path

import anywidget
from traitlets import Bool, Dict, List, Unicode


class Panel(anywidget.AnyWidget):
    """One part of the explorer; ``panels.js`` says what each part draws of which entries."""

    _esm = Path(__file__).parent / "panels.js"
    _css = Path(__file__).parent / "panels.css"
    part = Unicode().tag(sync=True)  # images, strip, equaliser, drift or classes
    fixed = Dict().tag(sync=True)  # until another image or teacher is chosen
    moving = Dict().tag(sync=True)  # with each move of a slider
    pending = Bool(False).tag(sync=True)  # greyed: it does not yet belong to what is set
    move: List[float] = List().tag(sync=True)  # ring and gain, or place in the strip

    def __init__(self, part: str) -> None:
        super().__init__(part=part)
        self.add_class("fopro-panel").add_class(f"fopro-{part}")
