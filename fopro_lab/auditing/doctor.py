"""The split doctor: every question to a data set and its split, answered at once."""

import numpy as np
import pandas as pd

from fopro_lab.auditing import verdicts
from fopro_lab.auditing.duplicates import copies_table, same_content
from fopro_lab.auditing.entanglement import class_by_source, entangle
from fopro_lab.auditing.findings import Findings
from fopro_lab.auditing.leaks import PARTS, count_ties, row_parts, tie_pictures, torn_groups
from fopro_lab.auditing.lookalikes import find_lookalikes
from fopro_lab.auditing.power import detectable_differences
from fopro_lab.config import DataConfig
from fopro_lab.data import Pack, Split, split_from
from fopro_lab.data.preparing import pack_from
from fopro_lab.errors import InputError
from fopro_lab.evaluation import groups_from

NO_SPLIT = "none"
RATIO_RULES = ("long-tail", "isic2019-lt")


def check_data(config: DataConfig, *, progress: bool = True) -> Findings:
    """Open, pack and split what a config names, and examine it.

    Pictures that cannot be read are left out and reported, whatever ``config.unusable`` says, and
    if no split can be made, what does not need one is still told.

    Args:
        config: Data set, size and split.
        progress: Say how far it is.

    Returns:
        The findings.

    Raises:
        InputError: If there is no data set, or none of its pictures can be read.

    Example:
        >>> check_data(DataConfig(pictures=48, image_size=16), progress=False).worst
        'warn'
    """
    lenient = config.model_copy(update={"unusable": "leave-out"})
    packed = pack_from(lenient, progress=progress)
    try:
        split = split_from(packed.dataset, lenient)
    except InputError as error:
        none = np.zeros(0, dtype=np.int64)
        split = Split(none, none, none, NO_SPLIT, "", (str(error),))
    return examine(packed, split, config=config, progress=progress)


def examine(packed: Pack, split: Split, *, config: DataConfig, progress: bool = False) -> Findings:
    """Examine a packed data set and its split.

    Args:
        packed: The pictures.
        split: Of ``packed.dataset``.
        config: Tells the rules of head, medium and tail, and the ratio that was asked for.
        progress: Say how far it is.

    Returns:
        Facts; findings in a fixed order; the tables ``counts``, ``unreadable``, ``copies``,
        ``lookalikes``, ``torn_groups``, ``ties``, ``sources``, ``power``.

    Example:
        >>> from fopro_lab.data import prepare
        >>> config = DataConfig(pictures=48, image_size=16)
        >>> packed, split = prepare(config, progress=False)
        >>> examine(packed, split, config=config).findings[0].verdict
        'all 48 pictures can be read'
    """
    dataset, names = packed.dataset, packed.dataset.class_names
    table, parts = dataset.table, row_parts(split, len(packed))
    groups = groups_from(config, names, split.class_counts(dataset))
    counts = _count_pictures(packed, parts, groups)
    content = same_content(packed)
    found = find_lookalikes(packed.images, np.unique(content), progress=progress)
    copies = copies_table(table, content=content, parts=parts)
    ties = tie_pictures(table, parts, content=content, lookalikes=found)
    torn, lookalikes = torn_groups(table, parts), _describe_pairs(found, table, parts)
    tangled = entangle(table)
    power = detectable_differences(
        packed.labels[split.test],
        table["group"].to_numpy()[split.test],
        class_names=names,
        groups=groups,
    )
    findings = (
        verdicts.judge_reading(packed),
        *verdicts.judge_notes(split),
        verdicts.judge_imbalance(counts, asked=_asked(config)),
        verdicts.judge_tested(counts),
        verdicts.judge_groups(table, torn, ties),
        verdicts.judge_copies(copies, ties),
        verdicts.judge_lookalikes(lookalikes, ties, flat=found.attrs["flat"]),
        verdicts.judge_labels(copies, lookalikes),
        verdicts.judge_sources(tangled),
        verdicts.judge_power(power),
    )
    left_out = pd.DataFrame(packed.left_out.items(), columns=["image", "reason"])
    tables = {
        "counts": counts,
        "unreadable": left_out,
        "copies": copies,
        "lookalikes": lookalikes,
        "torn_groups": torn,
        "ties": count_ties(ties, names),
        "sources": class_by_source(table, names).reset_index(),
        "power": power,
    }
    return Findings(_facts(packed, split, counts), findings, tables)


def _asked(config: DataConfig) -> float | None:
    return config.tail_ratio if config.rule in RATIO_RULES else None


def _count_pictures(packed: Pack, parts: np.ndarray, groups: dict[str, str]) -> pd.DataFrame:
    names = packed.dataset.class_names
    return pd.DataFrame(
        {"class": name, "group": groups[name], "split": part, "n": int(n)}
        for part in PARTS
        for name, n in zip(
            names, np.bincount(packed.labels[parts == part], minlength=len(names)), strict=True
        )
    )


def _describe_pairs(found: pd.DataFrame, table: pd.DataFrame, parts: np.ndarray) -> pd.DataFrame:
    """Say of near-duplicates what their rows stand for."""
    first, second = found["first"].to_numpy(dtype=int), found["second"].to_numpy(dtype=int)
    described = found[["bits", "correlation", "turn", "first", "second"]]
    for side, rows in (("first", first), ("second", second)):
        own = table[["image", "label", "group"]].iloc[rows].assign(part=parts[rows])
        described = described.join(own.reset_index(drop=True).add_suffix(f"_{side}"))
    same = described["group_first"] == described["group_second"]
    return described.assign(same_group=same.astype(bool))


def _facts(packed: Pack, split: Split, counts: pd.DataFrame) -> dict[str, object]:
    table = packed.dataset.table
    train = counts[counts["split"] == "train"]["n"]
    return {
        "dataset": packed.dataset.name,
        "pictures": len(packed),
        "groups": _counted(table["group"], none="unknown: each picture is its own"),
        "sources": _counted(table["source"], none="unknown"),
        "protocol": split.protocol,
        "imbalance": f"1:{train.max() / max(train.min(), 1):.0f} in training",
        "groups in two parts": split.shared_groups(packed.dataset),
        "fingerprint": packed.dataset.fingerprint,
    }


def _counted(names: pd.Series, *, none: str) -> int | str:
    """Count names; a picture of its own, or no name at all, says that nothing is known."""
    count = int(names.nunique())
    return none if count == len(names) or (names == "").all() else count
