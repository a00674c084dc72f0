"""What a node reads from outside: is it here, and if not, what brings it?"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fopro_lab.config import DataConfig, TrainConfig
from fopro_lab.data.benchmarks import SAME_PICTURES, benchmark_place
from fopro_lab.data.parts import PARTS
from fopro_lab.data.split_files import find_split_files
from fopro_lab.errors import InputError
from fopro_lab.fetching import data_folder, fetched_place, find_source
from fopro_lab.progress import in_bytes

_TEACHERLESS = ("ce", "bsm")  # methods that never load one
_OWN_FILES = {
    "student_weights": "weights that the student starts from",
    "prompt_file": "saved prompt",
    "natural": "natural pictures",
}


@dataclass(frozen=True)
class Missing:
    """Something that a node reads and that is not here.

    Attributes:
        what: In words.
        where: The path where it is looked for.
        way: How it gets there.

    Example:
        >>> print(Missing("saved prompt", "prompt.safetensors", "give the path"))
        saved prompt: not at prompt.safetensors; give the path
    """

    what: str
    where: str
    way: str

    def __str__(self) -> str:
        return f"{self.what}: not at {self.where}; {self.way}"


def missing_inputs(values: Mapping[str, Any]) -> list[Missing]:
    """List what a notebook would read and not find. Nothing is opened, nothing is fetched.

    Args:
        values: The notebook's parameters with its defaults. Names that it does not declare count
            as the knobs' own defaults, which need nothing.

    Returns:
        Data set, files of a published split, the teacher's weights (unless the method has no
        teacher), the student's, a saved prompt and natural pictures, as far as they are absent.

    Raises:
        InputError: If a value is no knob's.

    Example:
        >>> missing_inputs({"dataset": "phantom", "teacher": "builtin"})
        []
        >>> [str(each) for each in missing_inputs({"prompt_file": "no/such"})]
        ['saved prompt: not at no/such; give a path that exists: --set prompt_file=PATH']
    """
    config = TrainConfig.from_parameters(values)
    found = [_dataset(config), _split_files(config), _teacher(config)]
    for knob, what in _OWN_FILES.items():
        path = getattr(config, knob)
        if path and not _exists(path):
            found.append(Missing(what, path, f"give a path that exists: --set {knob}=PATH"))
    return [each for each in found if each is not None]


def _exists(path: str) -> bool:
    return Path(path).expanduser().exists()


def _fetch(name: str) -> str:
    """Say what brings a source, how large it is as far as known, and under which terms."""
    source = find_source(name)
    size = f"{in_bytes(source.size)}, " if source.size else ""
    terms = source.licence.partition(";")[0]
    return f"`fopro data fetch {name}` brings it ({size}licence: {terms})"


def _dataset(config: DataConfig) -> Missing | None:
    name = config.dataset
    if name == "phantom" or _exists(name):
        return None
    what = f"data set {name}"
    try:
        if benchmark_place(name) is not None:
            return None
    except InputError:
        try:
            source = find_source(SAME_PICTURES.get(name, name))
        except InputError:  # no MedMNIST of this name: told as a path
            pass
        else:
            place = data_folder() / source.folder
            way = f"{_fetch(source.name)}, or --set dataset=FOLDER"
            return Missing(what, str(place), way)
    return Missing(what, name, "give the pictures' folder or CSV: --set dataset=PATH")


def _split_files(config: DataConfig) -> Missing | None:
    if config.rule == "isic2019-lt":
        names = [f"{part}_skin{config.fold}_{config.tail_ratio:g}.csv" for part in PARTS]
        source = "fopro-splits"
    elif config.rule == "hyperkvasir":
        names, source = [f"{config.folds}_fold_split.csv"], "hyperkvasir"
    else:
        return None
    place = config.split_files or fetched_place(source)
    try:
        find_split_files(
            names, files=Path(place).expanduser() if place else None, fetched=source, knob=""
        )
    except InputError:
        where = str(place or data_folder() / source)
        way = f"{_fetch(source)}, or --set split_files=FOLDER"
        return Missing(f"published split ({', '.join(names)})", where, way)
    return None


def _teacher(config: TrainConfig) -> Missing | None:
    name, file = config.teacher, config.weights
    if name == "builtin" or (file and Path(file).expanduser().is_file()):
        return None
    from fopro_lab.models.fetched import FETCHED  # torch comes with it, so only where it is used

    if not file and config.method in _TEACHERLESS:
        return None
    source, what, own = FETCHED.get(name), f"weights of {name}", "--set weights=FILE"
    if source is None:
        way = f"nothing here fetches them: take them from their publisher, {own}"
        return Missing(what, file or "any path, since none is named", way)
    if file:
        return Missing(what, file, f"leave weights empty, then {_fetch(source)}, or {own}")
    if fetched_place(source) is not None:
        return None
    place = data_folder() / find_source(source).folder / find_source(source).files[0].name
    return Missing(what, str(place), f"{_fetch(source)}, or {own}")
