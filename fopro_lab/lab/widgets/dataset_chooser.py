"""The data set of a band explorer, chosen by hand; the bands stay as they are."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from fopro_lab.config import DataConfig, TeacherConfig
from fopro_lab.data import prepare
from fopro_lab.errors import InputError, WorkError
from fopro_lab.evaluation import load_runs
from fopro_lab.lab.widgets.band_explorer import BandExplorer
from fopro_lab.lab.widgets.controls import LABEL, Controls
from fopro_lab.lab.widgets.pins import teacher_of
from fopro_lab.lab.widgets.readouts import told_message
from fopro_lab.models import load_from


def open_explorer(
    config: DataConfig,
    asked: TeacherConfig,
    *,
    more_datasets: Sequence[str] = (),
    more_teachers: Sequence[str] = (),
    runs: Path | str = "",
    prompt: Path | str = "",
    **given: Any,
) -> "DatasetChooser":
    """Open a data set, its teachers and students in a band explorer; others to choose from.

    Args:
        config: Of the data set, and with another name of the others.
        asked: Of the teacher.
        more_datasets: Names, folders or CSVs; each is opened when it is chosen.
        more_teachers: Entries ``NAME``, or ``NAME=FILE`` with the file of its weights.
        runs: A run folder, or one that holds some; students of the first data set.
        prompt: A saved prompt, or a pin; the sliders start as it is.
        given: Further arguments of `BandExplorer`.

    Raises:
        InputError: If something is not there or does not fit.

    Example:
        >>> config = DataConfig(pictures=24, image_size=16)
        >>> chooser = open_explorer(config, TeacherConfig(), rings=2)
        >>> chooser.explorer.controls.teacher.value
        'builtin'
    """
    first = {asked.teacher: load_from(asked)}
    teachers = first | {entry: load_from(teacher_of(entry)) for entry in more_teachers}

    def explore(own: DataConfig, **more: Any) -> BandExplorer:
        packed, split = prepare(own)
        configs = [own, asked]
        return BandExplorer(packed, teacher=teachers, split=split, configs=configs, **given, **more)

    students = {run.name: run.path for run in load_runs(runs)} if str(runs) else {}
    explorer = explore(config, prompt=prompt, runs=students)
    explorer.controls.mode.value = "prompt" if str(prompt) else "rings"
    others = {
        name: partial(explore, config.model_copy(update={"dataset": name}))
        for name in more_datasets
    }
    return DatasetChooser(explorer, name=config.dataset, others=others)


class DatasetChooser(widgets.VBox):
    """Band explorers of several data sets, of which one is shown.

    Args:
        explorer: Shown first.
        name: Of its data set.
        others: By name of a data set, what builds its explorer, with as many rings. It is called
            when the data set is first chosen; what it made is kept.

    Attributes:
        explorer: The one that is shown.
        dataset, message: The choice, and what is said of it.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> def build(number):
        ...     return BandExplorer(pack(open_dataset("phantom", pictures=number), 16), rings=2)
        >>> chooser = DatasetChooser(build(24), name="a", others={"b": lambda: build(32)})
        >>> chooser.explorer.sliders[0].value = 0.0
        >>> chooser.dataset.value = "b"
        >>> len(chooser.explorer.pack), chooser.explorer.gains
        (32, [0.0, 1.0, 1.0])
    """

    def __init__(
        self,
        explorer: BandExplorer,
        *,
        name: str,
        others: Mapping[str, Callable[[], BandExplorer]],
    ) -> None:
        self.explorer = explorer
        self._explorers, self._builders = {name: explorer}, dict(others)
        self.dataset = widgets.Dropdown(
            options=[name, *others], description="Dataset", style=LABEL, layout={"width": "27em"}
        )
        self.dataset.add_class("fopro-choose-dataset")
        self.message = widgets.HTML()
        super().__init__()
        self._show()
        self.dataset.observe(self._choose, "value")

    def _choose(self, change: Any) -> None:
        name = change["new"]
        if self._explorers.get(name) is self.explorer:  # back, after one that could not be opened
            return
        try:
            if name not in self._explorers:
                self.message.value = told_message(f"{name}: opening ...")
                self._explorers[name] = self._builders[name]()
            self._explorers[name].take_over(self.explorer.state)
            _choose_alike(self._explorers[name].controls, self.explorer.controls)
        except Exception as error:  # whatever it was, the name shown is that of the pictures shown
            told = error if isinstance(error, (InputError, WorkError)) else repr(error)
            self.message.value = told_message(str(told))
            self.dataset.value = change["old"]
            return
        self.explorer, self.message.value = self._explorers[name], ""
        self._show()

    def _show(self) -> None:
        choice = [widgets.HBox([self.dataset, self.message])] if self._builders else []
        self.children = [*choice, self.explorer]

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """Show the widget where there is a front end, and the explorer's still everywhere else."""
        own = super()._repr_mimebundle_(**kwargs) or {}
        return {**self.explorer._repr_mimebundle_(**kwargs), **own}


def _choose_alike(here: Controls, there: Controls) -> None:
    """Choose the colour and, where it is among the choices, the teacher that is chosen there."""
    here.channel.value = there.channel.value
    if there.teacher.value in [value for _, value in here.teacher.options]:
        here.teacher.value = there.teacher.value
