"""Pins: what sliders stand at, as files that training and reports take; and the way back."""

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

from fopro_lab.config import Config, TeacherConfig
from fopro_lab.errors import InputError, WorkError
from fopro_lab.files import atomic_path
from fopro_lab.fourier import FourierPrompt
from fopro_lab.lab.plans import CHECKOUT

BOUND = 12.0  # of |log gain|: a ring that is removed keeps six millionths of its amplitude
PLAN = "reports/plans/pinned.yaml"
_PATHS = ("dataset", "split_files", "weights")
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"


class Pin(NamedTuple):
    """The two files of a pin."""

    knobs: Path
    prompt: Path


def ring_prompt(gains: np.ndarray, *, size: int) -> FourierPrompt:
    """Make a prompt of the form ring with given gains.

    Args:
        gains: ``(3, R + 1)``: of R equally wide rings up to 0.5 cycles per pixel and of the
            corners; three alike channels are kept as one.
        size: Side of the pictures, pixels.

    Example:
        >>> prompt = ring_prompt(np.array([[2.0, 0.0]] * 3), size=8)
        >>> prompt.channels, prompt.mean_gain()[0, 0, 1].item()
        (1, 2.0)
    """
    alike = bool((gains == gains[:1]).all())
    prompt = FourierPrompt(
        "ring",
        channels=1 if alike else 3,
        rings=gains.shape[1] - 1,
        size=size,
        max_log_gain=BOUND,
    )
    logarithms = np.log(np.maximum(gains, math.exp(-BOUND))) / BOUND
    cells = np.arctanh(logarithms.clip(-1 + 1e-9, 1))
    with torch.no_grad():
        prompt.cells.copy_(torch.from_numpy(cells[:1] if alike else cells))
    return prompt


def differing_knobs(configs: Sequence[Config]) -> dict[str, Any]:
    """List the knobs that differ from their defaults; paths that are here become absolute.

    Example:
        >>> from fopro_lab.config import DataConfig
        >>> differing_knobs([DataConfig(pictures=160)])
        {'pictures': 160}
    """
    knobs: dict[str, Any] = {}
    for config in configs:
        knobs |= config.model_dump(mode="json", exclude_defaults=True)
    for name in _PATHS:
        path = Path(str(knobs.get(name, ""))).expanduser()
        if knobs.get(name) and path.exists():
            knobs[name] = str(path.resolve())
    return knobs


def write_pin(
    name: str, prompt: FourierPrompt, *, folder: Path | str, knobs: Mapping[str, Any]
) -> Pin:
    """Write a prompt and the knobs that use it; nothing is overwritten.

    Args:
        name: Of both files: letters, digits, ``_``, ``.`` and ``-``.
        prompt: What is pinned.
        folder: Where they go; made if it is not there.
        knobs: Data and teacher, as `differing_knobs` gives them.

    Returns:
        Both paths: ``NAME.yaml``, which `fopro train -f` takes, and ``NAME.safetensors``.

    Raises:
        InputError: If the name is none for a file, or one of the files is there already.
        WorkError: If the folder cannot be written to.

    Example:
        >>> write_pin("a/b", FourierPrompt("ring"), folder="pins", knobs={})
        Traceback (most recent call last):
        fopro_lab.errors.InputError: name: expected letters, digits, _ . and -, got 'a/b'
    """
    if not re.fullmatch(_NAME, name):
        raise InputError(f"name: expected letters, digits, _ . and -, got '{name}'")
    place = Path(folder).expanduser()
    pin = Pin(place / f"{name}.yaml", place / f"{name}.safetensors")
    for path in pin:
        if path.exists():
            raise InputError(f"{path}: is there already and is left alone; choose another name")
    values = {"prompt_file": str(pin.prompt.resolve()), **knobs}
    about = "# Bands pinned in the explorer: a fixed prompt, with its data and teacher.\n"
    text = about + yaml.safe_dump(values, sort_keys=False)
    try:
        place.mkdir(parents=True, exist_ok=True)
        prompt.save(pin.prompt)
        with atomic_path(pin.knobs) as temporary:
            temporary.write_text(text, "utf-8")
    except (OSError, WorkError) as error:
        with suppress(OSError):
            pin.prompt.unlink()  # half a pin would block its name
        reason = getattr(error, "strerror", None) or error
        raise WorkError(f"{place}: may not be written ({reason})") from None
    return pin


def teacher_of(entry: str) -> TeacherConfig:
    """Read a teacher's entry in a list: ``NAME``, or ``NAME=FILE`` with its file of weights.

    Example:
        >>> teacher_of("cifar-resnet20=weights/r20.th").weights
        'weights/r20.th'
    """
    name, _, weights = entry.partition("=")
    return TeacherConfig.from_mapping({"teacher": name, "weights": weights})


def short_entry(entry: str) -> str:
    """Name a teacher by its entry, without the folder of its weights.

    Example:
        >>> short_entry("cifar-resnet20=weights/r20.th"), short_entry("builtin")
        ('cifar-resnet20, r20.th', 'builtin')
    """
    name, _, weights = entry.partition("=")
    return f"{name}, {Path(weights).name}" if weights else name


def knobs_of_teacher(knobs: Mapping[str, Any], entry: str) -> dict[str, Any]:
    """Let knobs name another teacher, by its entry alone.

    Example:
        >>> knobs_of_teacher({"pictures": 160, "teacher": "a", "weights": "a.pth"}, "b=b.pth")
        {'pictures': 160, 'teacher': 'b', 'weights': 'b.pth'}
    """
    others = {key: knob for key, knob in knobs.items() if key not in TeacherConfig.model_fields}
    return {**others, **differing_knobs([teacher_of(entry)]), "teacher": teacher_of(entry).teacher}


def pin_commands(pin: Pin) -> tuple[str, str]:
    """Return the commands that use a pin, to be started in the folder above its own.

    Example:
        >>> pin_commands(Pin(Path("pins/a.yaml"), Path("pins/a.safetensors")))[1]
        'fopro train -f pins/a.yaml'
    """
    told = shlex.quote(f"{pin.knobs.resolve().parent.name}/{pin.knobs.name}")
    here = (pin.knobs.resolve().parents[1] / PLAN).is_file() or not (CHECKOUT / PLAN).is_file()
    plan = PLAN if here else shlex.quote(str(CHECKOUT / PLAN))
    return f"fopro report {plan} -f {told}", f"fopro train -f {told}"


def told_pin(pin: Pin) -> str:
    """Say what was written, and how it is used.

    Example:
        >>> told_pin(Pin(Path("pins/a.yaml"), Path("pins/a.safetensors"))).splitlines()[0]
        'Written: pins/a.yaml and a.safetensors.'
    """
    report, train = pin_commands(pin)
    home = pin.knobs.resolve().parents[1]
    return f"Written: {pin.knobs} and {pin.prompt.name}.\nIn {home}: {report}\nor: {train}"


def read_prompt_file(path: Path | str) -> FourierPrompt:
    """Read a saved prompt, or the one that a pin's YAML names.

    Raises:
        InputError: If there is no such file, or none that holds a prompt of 1 or 3 channels.

    Example:
        >>> read_prompt_file("nowhere.safetensors")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.safetensors: no such file
    """
    from fopro_lab.settings import read_yaml

    text = str(path).strip()
    if not text:
        raise InputError("prompt: expected a path to a saved prompt or a pin, got none")
    if Path(text).suffix in (".yaml", ".yml"):
        named = read_yaml(Path(text).expanduser()).get("prompt_file")
        if not isinstance(named, str):
            raise InputError(f"{text}: expected a pin, with a prompt_file, got none")
        text = named
    prompt = FourierPrompt.load(Path(text).expanduser()).requires_grad_(False)
    if prompt.channels not in (1, 3):
        raise InputError(f"{text}: expected a prompt of 1 or 3 channels, got {prompt.channels}")
    return prompt
