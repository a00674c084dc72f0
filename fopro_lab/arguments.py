"""Wrong arguments of public functions: found at the call, said in one line with the way out.

Each package hands its public names to `check_public`, which checks what a caller passes against the
annotations. Values, such as ranges and shapes, are checked by the functions themselves.
"""

import inspect
import numbers
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from importlib import import_module
from typing import Any, Literal, Union, get_args, get_origin

from fopro_lab.errors import InputError

# Where to get a value of a type, or one that is meant by a value of another.
_WAYS: dict[Any, str] = {
    "DataConfig": "DataConfig.from_mapping(options) makes one",
    "DataFrame": "pd.read_csv(path) reads one, and a run has run.table() and run.history",
    "Dataset": "open_dataset(path) opens one, from_torch(source) takes a torch data set",
    "Encoder": "load_teacher(name) loads one, wrap_teacher(module, mean=..., std=...) makes one",
    "FourierPrompt": "FourierPrompt.load(path) reads one",
    "Mapping": "write names with their values, such as {'task': 1.0}",
    "Pack": "pack(dataset, size) makes one, of a torch data set pack(from_torch(source), size)",
    "Run": "load_runs(folder) finds them",
    "Split": "make_split(dataset) makes one",
    "Tensor": "torch.from_numpy(array) makes one",
    "TrainConfig": "TrainConfig.from_mapping(options) makes one",
    "ndarray": "np.asarray(values) makes one",
    "rows": "take split.train, split.val or split.test",
    ("Sequence", int): "ring_edges(8) gives the edges of 8 rings",
    ("int", str): "leave out the quotes",
    ("str", dict): "fill a network of your own, and wrap_teacher(network, ...) makes a teacher",
}
_WAYS["str", OrderedDict] = _WAYS["str", dict]
_WAYS["Teacher"] = _WAYS["Encoder"]
_WORDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "True or False"}
_WORDS |= {"DataFrame": "a table (pandas.DataFrame)", "Path": "a path", "NoneType": "None"}
_WORDS |= {"Sequence": "a list", "Iterable": "a list", "Mapping": "a mapping", "tuple": "a tuple"}
_WORDS |= {"ndarray": "a numpy array", "Tensor": "a torch tensor", "Encoder": "a teacher"}
_NUMBERS: dict[Any, Any] = {int: numbers.Integral, float: numbers.Real}
Misfit = tuple[str, Any, str]  # what was expected, what was found, and the expected type's name


def wrong(name: str, expected: str, value: Any, kind: str) -> InputError:
    """Make the error of an argument of the wrong type, with the usual way out if there is one."""
    short = isinstance(value, str | int | float | type(None) | list | tuple | dict)
    text = repr(value) if short and len(repr(value)) < 60 else f"a {type(value).__name__}"
    text += f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
    way = _WAYS.get((kind, type(value))) or _WAYS.get(kind, "")
    return InputError(f"{name}: expected {expected}, got {text}{'; ' * bool(way)}{way}")


def check_public(package: str) -> None:
    """Check from now on what callers pass to a package's public functions and methods."""
    for name, found in list(vars(sys.modules[package]).items()):
        home = str(getattr(found, "__module__", ""))
        if name.startswith("_") or not home.startswith(f"{package}."):
            continue
        if inspect.isfunction(found):
            for module in (package, home):
                setattr(sys.modules[module], name, checked(found))
        elif inspect.isclass(found):
            network = hasattr(found, "named_parameters")  # its passes may be compiled or exported
            for method, function in list(vars(found).items()):
                if isinstance(function, classmethod) and method[0] != "_":
                    setattr(found, method, classmethod(checked(function.__func__)))
                own_init = method == "__init__" and not hasattr(found, "__match_args__")
                if inspect.isfunction(function) and (own_init or not (method[0] == "_" or network)):
                    setattr(found, method, checked(function))


def late(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Make a package's ``__getattr__``: names with modules that are imported when first used."""

    def find(name: str) -> Any:
        if name in homes:
            return checked(getattr(import_module(f"{package}.{homes[name]}"), name))
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function refuse arguments that do not fit its annotations."""
    signature, hints = inspect.signature(function), dict[str, Any]()
    parameters = dict(signature.parameters)  # torch.compile traces no mapping proxy

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:  # too many or too few: Python's own message is clear
            return function(*args, **kwargs)
        for name, value in given.items():
            if name not in hints:  # at the first call: a module may still be half imported before
                hints[name] = _hint(parameters[name], vars(sys.modules[function.__module__]))
            if found := _misfit(value, hints[name]):
                raise wrong(name, *found)
        return function(*args, **kwargs)

    return call


def _hint(parameter: inspect.Parameter, names: dict[str, Any]) -> Any:
    """Return a parameter's annotation; Any for what only type checkers can read."""
    hint = parameter.annotation
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return Any
    if not isinstance(hint, str):
        return Any if hint is parameter.empty else hint
    try:
        return Any if "ArrayLike" in hint else eval(hint, names)
    except NameError:
        return Any


def _misfit(value: Any, hint: Any) -> Misfit | None:
    """Say what of a value does not fit an annotation; None if it fits."""
    origin, parts = get_origin(hint) or hint, get_args(hint)
    kind = getattr(origin, "__name__", "")
    inside: list[tuple[Any, Any]] = []  # not called as a type, which torch.compile does not trace
    expected = _WORDS.get(kind, f"a {kind}")
    if origin in (Union, types.UnionType):
        misfits = [_misfit(value, part) for part in parts]
        known = [found for found in misfits if found is not None]
        if len(known) < len(misfits):
            return None
        return " or ".join(dict.fromkeys(found[0] for found in known)), *known[0][1:]
    if origin is Literal:
        fits = isinstance(value, str) and value in parts
        expected = f"one of {', '.join(map(repr, parts))}"
    elif origin in _NUMBERS:
        fits = isinstance(value, _NUMBERS[origin]) and not isinstance(value, bool)
    elif origin is bool:
        fits = type(value).__name__ in ("bool", "bool_")
    elif origin in (Sequence, Iterable, tuple):
        fits = hasattr(value, "__iter__") and not isinstance(value, str | Mapping)
        fits = fits and (origin is Iterable or hasattr(value, "__len__"))
        fits = fits and getattr(value, "ndim", 1) == 1
        items = value.tolist() if hasattr(value, "tolist") else value
        if fits and isinstance(items, list | tuple):
            inside = [(each, parts[0] if parts else Any) for each in items]
    elif origin is Mapping:
        fits = isinstance(value, Mapping)
        pairs = value.items() if fits else ()
        inside = [both for pair in pairs for both in zip(pair, parts, strict=False)]
    elif getattr(origin, "_is_protocol", False):
        fits = all(hasattr(value, name) for name in vars(origin) if name[0] != "_")
    else:
        fits = origin is Any or not isinstance(origin, type) or isinstance(value, origin)
    inner = (found for each, own in inside if (found := _misfit(each, own)))
    return next(inner, None) if fits else (expected, value, kind)
