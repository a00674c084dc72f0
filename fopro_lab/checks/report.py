"""The split doctor: every question to a data set and its split, answered at once."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from fopro_lab.checks import report as verdicts
from fopro_lab.checks.duplicates import copies_table, find_lookalikes, same_content
from fopro_lab.checks.leakage import (
    PARTS,
    Entanglement,
    class_by_source,
    count_ties,
    entangle,
    row_parts,
    tie_images,
    torn_groups,
)
from fopro_lab.checks.power import detectable_differences
from fopro_lab.config import DataConfig
from fopro_lab.data import Pack, Split, split_from
from fopro_lab.data.prepare import pack_from
from fopro_lab.errors import InputError
from fopro_lab.evaluation import groups_from
from fopro_lab.io import atomic_path, write_json

Level = Literal["ok", "note", "warn", "fail"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warn", "fail")


class Finding(NamedTuple):
    """One question to the data and its answer.

    Attributes:
        level: ``ok``; ``note``: know it; ``warn``: results hold, but weaker than they look;
            ``fail``: images cannot be used, or results on this split would be wrong.
        what: The question, one word or two.
        number: The number that decides, or None.
        verdict: One line.
    """

    level: Level
    what: str
    number: float | None
    verdict: str


@dataclass(frozen=True, eq=False)
class Findings:
    """All answers, the facts about the data set and the tables behind them.

    Attributes:
        facts: Names and values: images, groups, protocol, ...
        findings: In the order of the questions.
        tables: By name; each can be written as a CSV.

    Example:
        >>> found = Findings({}, (Finding("warn", "power", 0.3, "few"),), {})
        >>> found.worst, found.lines()
        ('warn', ['warn  power  few'])
    """

    facts: dict[str, Any]
    findings: tuple[Finding, ...]
    tables: dict[str, pd.DataFrame]

    @property
    def worst(self) -> Level:
        """The gravest level."""
        return max((finding.level for finding in self.findings), key=LEVELS.index, default="ok")

    def table(self) -> pd.DataFrame:
        """Return the findings, a row each: level, what, number, verdict."""
        return pd.DataFrame(self.findings, columns=list(Finding._fields))

    def lines(self) -> list[str]:
        """Return a line a finding, level first, aligned."""
        width = max((len(finding.what) for finding in self.findings), default=0)
        return [f"{each.level:<4}  {each.what:<{width}}  {each.verdict}" for each in self.findings]

    def count_lines(self) -> list[str]:
        """Return the images of each class and part, aligned."""
        counts = self.tables["counts"].pivot(index="class", columns="split", values="n")
        order = self.tables["counts"]["class"].drop_duplicates()
        lines = [f"{'class':<28}{'train':>8}{'val':>8}{'test':>8}"]
        for name, row in counts.loc[order].iterrows():
            lines.append(f"{str(name)[:27]:<28}{row['train']:>8}{row['val']:>8}{row['test']:>8}")
        return lines

    def unreadable_lines(self) -> list[str]:
        """Return every image that cannot be read, and why."""
        return [f"unreadable: {reason}" for reason in self.tables["unreadable"]["reason"]]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON; what is undefined is None.

        Example:
            >>> Findings({"images": 3}, (), {"a": pd.DataFrame({"n": [1]})}).as_dict()
            {'images': 3, 'worst': 'ok', 'findings': [], 'tables': {'a': [{'n': 1}]}}
        """
        tables = {
            name: json.loads(table.to_json(orient="records")) for name, table in self.tables.items()
        }
        findings = [finding._asdict() for finding in self.findings]
        return {**self.facts, "worst": self.worst, "findings": findings, "tables": tables}

    def write(self, folder: Path | str) -> Path:
        """Write ``findings.json``, ``findings.csv`` and a CSV a table.

        Args:
            folder: Where to; made if missing.

        Returns:
            The folder.

        Raises:
            WorkError: If the disk is full or may not be written.
        """
        folder = Path(folder)
        write_json(
            folder / "findings.json", {k: v for k, v in self.as_dict().items() if k != "tables"}
        )
        for name, table in {"findings": self.table(), **self.tables}.items():
            with atomic_path(folder / f"{name}.csv") as temporary:
                table.to_csv(temporary, index=False)
        return folder


FEW = 10  # images; with fewer a recall is told as k of n
CROWD = 20  # images; a group of more, and of a tenth of all, may be a word for not known
TANGLED = (0.1, 0.3)  # Cramer's V from which class and source are worth a note, a warning
BLIND = (0.05, 0.15)  # detectable difference from which the tail is worth a note, a warning


def judge_reading(packed: Pack) -> Finding:
    """Are all images there and readable?"""
    broken, total = len(packed.left_out), len(packed) + len(packed.left_out)
    others, also = packed.dataset.passed_over, ""
    if others:
        also = f"; {_counted(len(others), 'other file')} passed over, first {others[0]}"
    if not broken:
        level: Level = "note" if others else "ok"
        return Finding(level, "reading", 0, f"all {total:,} images can be read{also}")
    verdict = f"{broken:,} of {total:,} images cannot be read; all else is said of the others"
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
        return Finding("fail", "imbalance", None, f"no training images of {none}")
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
        return Finding(level, "tested", len(lacking), f"no image of {told}")
    if len(few):
        told = _some(
            [f"{row.n} of {row.name} in {row.split}" for row in few.itertuples(index=False)]
        )
        return Finding("warn", "tested", len(few), f"fewer than {FEW} images: {told}")
    least = int(held["n"].min())
    return Finding("ok", "tested", 0, f"every class has {least:,} images or more to be tested on")


def judge_groups(table: pd.DataFrame, torn: pd.DataFrame, ties: pd.DataFrame) -> Finding:
    """Do parts share a lesion or patient?"""
    if table["group"].is_unique:
        verdict = "unknown lesions or patients: images of one may lie in two parts unseen"
        return Finding("warn", "groups", None, verdict)
    crowded = _tell_crowd(table["group"])
    if ties.empty:
        return Finding(
            "note", "groups", None, "no split: no part that could share a group" + crowded
        )
    own = (table["group"] == table["image"]) & ~table["group"].duplicated(keep=False)
    alone = int(own.sum())  # an image without a group was made its own
    if torn.empty and alone:
        told = f"no known group has images in two parts; of {_counted(alone, 'image')} the "
        return Finding("warn", "groups", 0, f"{told}lesion or patient is unknown{crowded}")
    if torn.empty:
        told = f"none of {table['group'].nunique():,} groups has images in two parts"
        return Finding("note" if crowded else "ok", "groups", 0, told + crowded)
    test, tested = _tied(ties, "group", part="test"), _held(ties, "test")
    val = _tied(ties, "group", part="val")
    verdict = f"{_counted(len(torn), 'torn group')}: of {tested:,} test images {test:,}"
    verdict += f" ({_percent(test, tested)}) show one that is in training too"
    verdict += f", of {_held(ties, 'val'):,} for validation {val:,}{crowded}"
    return Finding("fail" if test or val else "warn", "groups", len(torn), verdict)


def judge_copies(copies: pd.DataFrame, ties: pd.DataFrame) -> Finding:
    """Is an image there twice, byte for byte or pixel for pixel?"""
    extra = len(copies) - copies["content"].nunique()
    if not extra:
        return Finding("ok", "copies", 0, "no image is there twice")
    tied = {part: _tied(ties, "copy", part=part) for part in ("test", "val")}
    verdict = f"{_counted(extra, 'image')} copied from another"
    if any(tied.values()):
        verdict += f"; {tied['test']:,} of test and {tied['val']:,} of validation are in training"
        return Finding("fail", "copies", extra, verdict)
    across = "" if ties.empty else ", none of them across training and test"
    return Finding("warn", "copies", extra, verdict + across)


def judge_lookalikes(lookalikes: pd.DataFrame, ties: pd.DataFrame, *, flat: int) -> Finding:
    """Is an image there twice, but saved anew, brightened, mirrored or turned?"""
    pairs = len(lookalikes)
    unseen_by = f"; {_counted(flat, 'image')} too flat to be compared" if flat else ""
    if not pairs:
        level: Level = "note" if flat else "ok"
        return Finding(level, "lookalikes", 0, f"no near-duplicates found{unseen_by}")
    known = int(lookalikes["same_group"].sum())
    unseen = ties[ties["lookalike"] & ~ties["group"] & (ties["other"] == "train")]
    test = int((unseen["part"] == "test").sum())
    verdict = f"{_counted(pairs, 'near-duplicate pair')}, {pairs - known:,} not of one group"
    if len(unseen):
        verdict += f"; {_counted(test, 'image')} of test and {len(unseen) - test:,} of validation"
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
        return Finding("note", "labels", None, "no image is there twice: no labels to compare")
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
        return Finding("warn", "power", None, f"{tail['n']} tail images to test on show nothing")
    level: Level = "warn" if least > BLIND[1] else "note" if least > BLIND[0] else "ok"
    verdict = (
        f"a tail difference below {100 * least:.0f} points will hardly show: "
        f"{tail['n']:,} test images of {tail['units']:,} groups"
    )
    return Finding(level, "power", least, verdict)


def _tell_crowd(groups: pd.Series) -> str:
    """Name a group so large that its name may stand for an unknown lesion or patient."""
    sizes = groups.value_counts()
    largest = int(sizes.iloc[0])
    if largest <= max(CROWD, len(groups) / 10):
        return ""
    return f"; '{sizes.index[0]}' alone has {largest:,} of {len(groups):,} images"


def _tied(ties: pd.DataFrame, tie: str, *, part: str) -> int:
    """Count images of a part that are tied to training."""
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


NO_SPLIT = "none"
RATIO_RULES = ("long-tail", "isic2019-lt")


def check_data(config: DataConfig, *, progress: bool = True) -> Findings:
    """Open, pack and split what a config names, and examine it.

    Images that cannot be read are left out and reported, whatever ``config.unusable`` says, and
    if no split can be made, what does not need one is still told.

    Args:
        config: Data set, size and split.
        progress: Say how far it is.

    Returns:
        The findings.

    Raises:
        InputError: If there is no data set, or none of its images can be read.

    Example:
        >>> check_data(DataConfig(images=48, image_size=16), progress=False).worst
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
        packed: The images.
        split: Of ``packed.dataset``.
        config: Tells the rules of head, medium and tail, and the ratio that was asked for.
        progress: Say how far it is.

    Returns:
        Facts; findings in a fixed order; the tables ``counts``, ``unreadable``, ``copies``,
        ``lookalikes``, ``torn_groups``, ``ties``, ``sources``, ``power``.

    Example:
        >>> from fopro_lab.data import prepare
        >>> config = DataConfig(images=48, image_size=16)
        >>> packed, split = prepare(config, progress=False)
        >>> examine(packed, split, config=config).findings[0].verdict
        'all 48 images can be read'
    """
    dataset, names = packed.dataset, packed.dataset.class_names
    table, parts = dataset.table, row_parts(split, len(packed))
    groups = groups_from(config, names, split.class_counts(dataset))
    counts = _count_images(packed, parts, groups)
    content = same_content(packed)
    found = find_lookalikes(packed.images, np.unique(content), progress=progress)
    copies = copies_table(table, content=content, parts=parts)
    ties = tie_images(table, parts, content=content, lookalikes=found)
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


def _count_images(packed: Pack, parts: np.ndarray, groups: dict[str, str]) -> pd.DataFrame:
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
        "images": len(packed),
        "groups": _counted_doctor(table["group"], none="unknown: each image is its own"),
        "sources": _counted_doctor(table["source"], none="unknown"),
        "protocol": split.protocol,
        "imbalance": f"1:{train.max() / max(train.min(), 1):.0f} in training",
        "groups in two parts": split.shared_groups(packed.dataset),
        "fingerprint": packed.dataset.fingerprint,
    }


def _counted_doctor(names: pd.Series, *, none: str) -> int | str:
    """Count names; an image of its own, or no name at all, says that nothing is known."""
    count = int(names.nunique())
    return none if count == len(names) or (names == "").all() else count
