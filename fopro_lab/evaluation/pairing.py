"""Which run is compared with which: pairs of one fold and seed, and the runs without a partner."""

from collections.abc import Sequence

import pandas as pd

from fopro_lab.errors import InputError
from fopro_lab.evaluation.folds import by_protocol
from fopro_lab.evaluation.runs import Run


def pairs_of(
    by_method: dict[str, dict[str, dict[int, Run]]], method: str, baseline: str
) -> dict[str, tuple[list[Run], list[Run]]]:
    """Pair the runs of two methods by seed, fold by fold.

    Args:
        by_method: Of `by_method_of`.
        method: The one.
        baseline: The other.

    Returns:
        Of each protocol with a seed in common, the runs of the one and of the other.

    Raises:
        InputError: If they have no seed of any fold in common.
    """
    pairs = {}
    for protocol, ours in by_method[method].items():
        theirs = by_method[baseline].get(protocol, {})
        common = [each for each in ours if each in theirs]
        if common:
            pairs[protocol] = [ours[each] for each in common], [theirs[each] for each in common]
    if not pairs:
        had = (
            ", ".join(f"{seed} of {protocol}" for protocol, own in folds.items() for seed in own)
            for folds in (by_method[method], by_method[baseline])
        )
        raise InputError(
            f"{method}: expected a seed in common with '{baseline}', got {' against '.join(had)}"
        )
    return pairs


def by_method_of(runs: Sequence[Run]) -> dict[str, dict[str, dict[int, Run]]]:
    """Sort runs by method, protocol and seed, each combination once.

    Args:
        runs: Finished runs.

    Raises:
        InputError: If two runs have the same method, protocol and seed.

    Example:
        >>> by_method_of([])
        {}
    """
    found: dict[str, dict[str, dict[int, Run]]] = {run.method: {} for run in runs}
    for protocol, members in by_protocol(runs).items():
        for run in members:
            by_seed = found[run.method].setdefault(protocol, {})
            if run.seed in by_seed:
                raise InputError(
                    f"{run.path}: expected one run of '{run.method}' with seed {run.seed}, got "
                    f"also {by_seed[run.seed].path}; leave one out"
                )
            by_seed[run.seed] = run
    return found


def pairings(runs: Sequence[Run], baseline: str) -> pd.DataFrame:
    """Tell of every run whether a comparison takes it, and why not.

    Args:
        runs: Finished and unfinished ones.
        baseline: Method that is subtracted.

    Returns:
        A row a run: ``run`` (its path), ``method``, ``seed``, ``protocol``, ``state``, ``paired``
        (whether any difference rests on it), ``with`` (the methods it is paired with) and
        ``reason`` (why it is left out, or out of some pairs; empty if it is in all).

    Example:
        >>> pairings([], "bsm").columns.tolist()[:3]
        ['run', 'method', 'seed']
    """
    finished = [run for run in runs if run.complete]
    found = {(run.method, run.protocol, run.seed) for run in finished}
    others = list(dict.fromkeys(run.method for run in finished if run.method != baseline))
    rows = []
    for run in runs:
        partners = others if run.method == baseline else [baseline]
        done = run.complete
        known = [name for name in partners if done and (name, run.protocol, run.seed) in found]
        lacking = [name for name in partners if name not in known]
        reason = f"not finished: {run.state}" if run.state != "done" else "no predictions.parquet"
        if done:
            reason = f"no run of {', '.join(lacking)} has its seed and fold" if lacking else ""
        rows.append(
            {
                "run": run.path.as_posix(),
                "method": run.method,
                "seed": run.seed,
                "protocol": run.manifest.get("protocol", ""),
                "state": run.state,
                "paired": bool(known),
                "with": ", ".join(known),
                "reason": reason,
            }
        )
    names = ["run", "method", "seed", "protocol", "state", "paired", "with", "reason"]
    return pd.DataFrame(rows, columns=names)


def dropped_lines(table: pd.DataFrame) -> list[str]:
    """Say in a line each which runs a comparison leaves out, wholly or in part.

    Args:
        table: Of `pairings`.

    Example:
        >>> dropped_lines(pairings([], "bsm"))
        []
    """
    told = []
    for row in table[table["reason"] != ""].itertuples():
        how = f"used against {row[7]} alone" if row.paired else "left out"
        told.append(f"{how}: {row.run} ({row.method}, seed {row.seed}): {row.reason}")
    return told
