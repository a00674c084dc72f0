"""Folds of one cross-validation: which runs belong together, and what they share."""

import re
from collections.abc import Mapping, Sequence
from itertools import combinations

from fopro_lab.evaluation.pictures import GROUPS
from fopro_lab.evaluation.runs import Run

_FOLD = re.compile(r"/fold(\d+)$")


def family(protocol: str) -> str:
    """Return a protocol id without its fold: what the folds of one deal have in common.

    Example:
        >>> family("ham10000/groups/folds3-val0.15/seed0/fold2"), family("toy/seed0")
        ('ham10000/groups/folds3-val0.15/seed0', 'toy/seed0')
    """
    return _FOLD.sub("", protocol)


def pooled_protocol(protocols: Sequence[str]) -> str:
    """Name several folds of one deal in one id.

    Example:
        >>> pooled_protocol(["toy/folds3/fold1", "toy/folds3/fold3"])
        'toy/folds3/fold1+3'
        >>> pooled_protocol(["toy/seed0"])
        'toy/seed0'
    """
    different = list(dict.fromkeys(protocols))
    if len(different) == 1:
        return different[0]
    numbers = [found.group(1) for found in map(_FOLD.search, different) if found]
    return f"{family(different[0])}/fold{'+'.join(sorted(numbers, key=int))}"


def group_families(runs: Sequence[Run], *, split: str = "test") -> list[list[Run]]:
    """Sort runs into those whose numbers may be averaged.

    Folds of one deal are averaged where no lesion, patient or picture is tested twice. Published
    "folds" that are drawn anew each time test some pictures twice and stay apart, as all other
    protocols do.

    Args:
        runs: Finished runs.
        split: "test" or "val".

    Returns:
        Lists of runs, in the order of the first of each.

    Example:
        >>> group_families([])
        []
    """
    families: dict[str, list[Run]] = {}
    for run in runs:
        families.setdefault(family(run.protocol), []).append(run)
    sorted_out: list[list[Run]] = []
    for members in families.values():
        folds = by_protocol(members)
        if len(folds) > 1 and _tested_twice([own[0] for own in folds.values()], split=split):
            sorted_out += list(folds.values())
        else:
            sorted_out.append(members)
    return sorted_out


def by_protocol(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Sort runs by protocol, in the order of the ids.

    Example:
        >>> by_protocol([])
        {}
    """
    found: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.protocol):
        found.setdefault(run.protocol, []).append(run)
    return found


def merge_groups(groups: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Give each class the group that it has in most folds; of two as frequent, the rarer one.

    Folds differ by a few training pictures, so two classes of almost one size may change places.

    Example:
        >>> one, other = {"nv": "head", "mel": "medium"}, {"mel": "head", "nv": "head"}
        >>> merge_groups([one, one, other])
        {'nv': 'head', 'mel': 'medium'}
    """
    merged = {}
    for name in groups[0]:
        places = [GROUPS.index(each[name]) for each in groups]
        merged[name] = GROUPS[max(set(places), key=lambda place: (places.count(place), place))]
    return merged


def _tested_twice(runs: Sequence[Run], *, split: str) -> bool:
    """Say whether some lesion, patient or picture is tested in two of the runs."""
    tested: list[set[str]] = []
    for run in runs:
        table = run.predictions
        part = table[table["split"] == split]
        units = part["group"].astype(str).where(part["group"].astype(str) != "", part["image"])
        tested.append(set(units))
    return any(one & other for one, other in combinations(tested, 2))
