"""From tables to verdicts: one function a question, one line an answer."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fopro_lab.auditing.entanglement import Entanglement
from fopro_lab.auditing.findings import Finding, Level
from fopro_lab.data import Pack, Split

FEW = 10  # pictures; with fewer a recall is told as k of n
CROWD = 20  # pictures; a group of more, and of a tenth of all, may be a word for not known
TANGLED = (0.1, 0.3)  # Cramer's V from which class and source are worth a note, a warning
BLIND = (0.05, 0.15)  # detectable difference from which the tail is worth a note, a warning


def judge_reading(packed: Pack) -> Finding:
    """Are all pictures there and readable?"""
    broken, total = len(packed.left_out), len(packed) + len(packed.left_out)
    others, also = packed.dataset.passed_over, ""
    if others:
        also = f"; {_counted(len(others), 'other file')} passed over, first {others[0]}"
    if not broken:
        level: Level = "note" if others else "ok"
        return Finding(level, "reading", 0, f"all {total:,} pictures can be read{also}")
    verdict = f"{broken:,} of {total:,} pictures cannot be read; all else is said of the others"
    return Finding("fail", "reading", broken, verdict + also)


def judge_notes(split: Split) -> list[Finding]:
    """What does the split say of itself: what it lacks, or why it cannot be made."""
    level: Level = "note" if len(split.train) else "fail"
    return [Finding(level, "split", None, note) for note in split.notes]


def judge_imbalance(counts: pd.DataFrame, *, asked: float | None) -> Finding:
    """How rare is the rarest class in training?"""
    train = counts[counts["split"] == "train"].set_index("class")["n"]
    if train.min() == 0:
        none = ", ".join(train.index[train == 0])
        return Finding("fail", "imbalance", None, f"no training pictures of {none}")
    ratio = float(train.max() / train.min())
    verdict = (
        f"1:{ratio:.0f} in training, {train.min():,} of {train.idxmin()} "
        f"to {train.max():,} of {train.idxmax()}"
    )
    if asked is not None and round(1 / asked) != round(ratio):
        verdict += f"; asked was 1:{1 / asked:.0f}"
    return Finding("ok" if ratio < 2 else "note", "imbalance", ratio, verdict)


def judge_tested(counts: pd.DataFrame) -> Finding:
    """Is every class there in validation and test, and often enough?"""
    held = counts[counts["split"] != "train"].rename(columns={"class": "name"})
    lacking, few = held[held["n"] == 0], held[(held["n"] > 0) & (held["n"] < FEW)]
    if len(lacking):
        told = _some((lacking["name"] + " in " + lacking["split"]).tolist())
        level: Level = "fail" if "test" in set(lacking["split"]) else "warn"
        return Finding(level, "tested", len(lacking), f"no picture of {told}")
    if len(few):
        told = _some(
            [f"{row.n} of {row.name} in {row.split}" for row in few.itertuples(index=False)]
        )
        return Finding("warn", "tested", len(few), f"fewer than {FEW} pictures: {told}")
    least = int(held["n"].min())
    return Finding("ok", "tested", 0, f"every class has {least:,} pictures or more to be tested on")


def judge_groups(table: pd.DataFrame, torn: pd.DataFrame, ties: pd.DataFrame) -> Finding:
    """Do parts share a lesion or patient?"""
    if table["group"].is_unique:
        verdict = "unknown lesions or patients: pictures of one may lie in two parts unseen"
        return Finding("warn", "groups", None, verdict)
    crowded = _tell_crowd(table["group"])
    if ties.empty:
        return Finding(
            "note", "groups", None, "no split: no part that could share a group" + crowded
        )
    own = (table["group"] == table["image"]) & ~table["group"].duplicated(keep=False)
    alone = int(own.sum())  # a picture without a group was made its own
    if torn.empty and alone:
        told = f"no known group has pictures in two parts; of {_counted(alone, 'picture')} the "
        return Finding("warn", "groups", 0, f"{told}lesion or patient is unknown{crowded}")
    if torn.empty:
        told = f"none of {table['group'].nunique():,} groups has pictures in two parts"
        return Finding("note" if crowded else "ok", "groups", 0, told + crowded)
    test, tested = _tied(ties, "group", part="test"), _held(ties, "test")
    val = _tied(ties, "group", part="val")
    verdict = f"{_counted(len(torn), 'torn group')}: of {tested:,} test pictures {test:,}"
    verdict += f" ({_percent(test, tested)}) show one that is in training too"
    verdict += f", of {_held(ties, 'val'):,} for validation {val:,}{crowded}"
    return Finding("fail" if test or val else "warn", "groups", len(torn), verdict)


def judge_copies(copies: pd.DataFrame, ties: pd.DataFrame) -> Finding:
    """Is a picture there twice, byte for byte or pixel for pixel?"""
    extra = len(copies) - copies["content"].nunique()
    if not extra:
        return Finding("ok", "copies", 0, "no picture is there twice")
    tied = {part: _tied(ties, "copy", part=part) for part in ("test", "val")}
    verdict = f"{_counted(extra, 'picture')} copied from another"
    if any(tied.values()):
        verdict += f"; {tied['test']:,} of test and {tied['val']:,} of validation are in training"
        return Finding("fail", "copies", extra, verdict)
    across = "" if ties.empty else ", none of them across training and test"
    return Finding("warn", "copies", extra, verdict + across)


def judge_lookalikes(lookalikes: pd.DataFrame, ties: pd.DataFrame, *, flat: int) -> Finding:
    """Is a picture there twice, but saved anew, brightened, mirrored or turned?"""
    pairs = len(lookalikes)
    unseen_by = f"; {_counted(flat, 'picture')} too flat to be compared" if flat else ""
    if not pairs:
        level: Level = "note" if flat else "ok"
        return Finding(level, "lookalikes", 0, f"no near-duplicates found{unseen_by}")
    known = int(lookalikes["same_group"].sum())
    unseen = ties[ties["lookalike"] & ~ties["group"] & (ties["other"] == "train")]
    test = int((unseen["part"] == "test").sum())
    verdict = f"{_counted(pairs, 'near-duplicate pair')}, {pairs - known:,} not of one group"
    if len(unseen):
        verdict += f"; {_counted(test, 'picture')} of test and {len(unseen) - test:,} of validation"
        verdict += " have one in training that their group does not tell"
    return Finding("warn" if len(unseen) else "note", "lookalikes", pairs, verdict + unseen_by)


def judge_labels(copies: pd.DataFrame, lookalikes: pd.DataFrame) -> Finding:
    """Do copies and near-duplicates agree about their class?"""
    sets = int((copies.groupby("content")["label"].nunique() > 1).sum())
    pairs = int((lookalikes["label_first"] != lookalikes["label_second"]).sum())
    if sets or pairs:
        verdict = f"two labels in {_counted(sets, 'set')} of copies and in "
        verdict += _counted(pairs, "near-duplicate pair")
        return Finding("warn", "labels", sets + pairs, verdict)
    if copies.empty and lookalikes.empty:
        return Finding("note", "labels", None, "no picture is there twice: no labels to compare")
    return Finding("ok", "labels", 0, "copies and near-duplicates agree about their class")


def judge_sources(found: Entanglement) -> Finding:
    """Can the source be mistaken for the class? An interval rules it out, no large p."""
    if np.isnan(found.v):
        return Finding("note", "sources", None, "fewer than two known sources: nothing to compare")
    verdict = (
        f"class against source: Cramer's V {found.v:.2f} ({found.low:.2f} to {found.high:.2f}), "
        f"p {found.p:.3f}, {found.groups:,} groups"
    )
    if found.high < TANGLED[0]:
        return Finding("ok", "sources", found.v, verdict)
    if not found.p <= 0.05:
        return Finding("note", "sources", found.v, f"cannot be told: {verdict}")
    return Finding("warn" if found.v >= TANGLED[1] else "note", "sources", found.v, verdict)


def judge_power(power: pd.DataFrame) -> Finding:
    """Which difference in the tail would show at all?"""
    tails = power[(power["scope"] == "group") & (power["name"] == "tail")]
    if tails.empty:
        return Finding("note", "power", None, "no class is tail by this rule: nothing to detect")
    tail = tails.iloc[0]
    least = float(tail["detectable"])
    if np.isnan(least):
        return Finding("warn", "power", None, f"{tail['n']} tail pictures to test on show nothing")
    level: Level = "warn" if least > BLIND[1] else "note" if least > BLIND[0] else "ok"
    verdict = (
        f"a tail difference below {100 * least:.0f} points will hardly show: "
        f"{tail['n']:,} test pictures of {tail['units']:,} groups"
    )
    return Finding(level, "power", least, verdict)


def _tell_crowd(groups: pd.Series) -> str:
    """Name a group so large that its name may stand for an unknown lesion or patient."""
    sizes = groups.value_counts()
    largest = int(sizes.iloc[0])
    if largest <= max(CROWD, len(groups) / 10):
        return ""
    return f"; '{sizes.index[0]}' alone has {largest:,} of {len(groups):,} pictures"


def _tied(ties: pd.DataFrame, tie: str, *, part: str) -> int:
    """Count pictures of a part that are tied to training."""
    return int(ties[(ties["part"] == part) & (ties["other"] == "train")][tie].sum())


def _held(ties: pd.DataFrame, part: str) -> int:
    return int(((ties["part"] == part) & (ties["other"] == "train")).sum())


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _percent(count: int, total: int) -> str:
    return f"{100 * count / max(total, 1):.0f} %"


def _some(texts: Sequence[str], *, most: int = 6) -> str:
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
