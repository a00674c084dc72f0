"""The data report: every check of a data set and its split, one verdict per line."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from fopro_lab.checks import leakage
from fopro_lab.checks.duplicates import find_near_duplicates, same_content
from fopro_lab.checks.leakage import TELLING, Association
from fopro_lab.checks.power import detectable_differences
from fopro_lab.config import DataConfig
from fopro_lab.data import Pack, Split, split_from
from fopro_lab.data.pack import pack_from
from fopro_lab.data.readers import PARTS
from fopro_lab.data.split_rules import check_split
from fopro_lab.errors import InputError
from fopro_lab.evaluation import groups_from
from fopro_lab.evaluation.scores import group_ties
from fopro_lab.io import some, write_csv, write_json

Level = Literal["ok", "note", "warn", "fail"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warn", "fail")
FEW_LEVELS = 32  # of 256; with fewer an image is nearly a mask
FEW = 10  # images; with fewer, a recall says little
ASSOCIATED = (0.1, 0.3)  # Cramer's V from which class and source are worth a note, a warning
BLIND = (0.05, 0.15)  # detectable difference from which the tail is worth a note, a warning


class Finding(NamedTuple):
    """One check and its result.

    A ``note`` is good to know; with a ``warn`` results hold, but weaker than they look; with a
    ``fail`` images cannot be used, or results on this split would be wrong.
    """

    level: Level
    what: str  # the check, one word or two
    number: float | None  # that decides
    verdict: str  # one line


@dataclass(frozen=True, eq=False)
class Findings:
    """All findings, the facts about the data set and the tables behind them."""

    facts: dict[str, Any]  # images, groups, protocol, ...
    findings: tuple[Finding, ...]  # in the order of the checks
    tables: dict[str, pd.DataFrame]  # by name, see `examine`

    def table(self) -> pd.DataFrame:
        """Return one row per finding: level, what, number, verdict."""
        return pd.DataFrame(self.findings, columns=list(Finding._fields))

    def lines(self) -> list[str]:
        """Return one aligned line per finding, level first."""
        width = max((len(finding.what) for finding in self.findings), default=0)
        return [f"{each.level:<4}  {each.what:<{width}}  {each.verdict}" for each in self.findings]

    def count_lines(self) -> list[str]:
        """Return group and images by part of each class, aligned; no line without a split."""
        if self.facts["protocol"] == "none":
            return []
        own = self.tables["counts"].pivot(index=["class", "group"], columns="split", values="n")
        ordered = own[list(PARTS)].sort_values("train", ascending=False, kind="stable")
        shown = ordered.reset_index("group").rename_axis(index=None, columns=None)
        return shown.to_string().splitlines()

    def unreadable_lines(self) -> list[str]:
        """Return every image that cannot be read, and why."""
        return [f"unreadable: {reason}" for reason in self.tables["unreadable"]["reason"]]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON; what is undefined is None."""
        texts = {name: own.to_json(orient="records") for name, own in self.tables.items()}
        tables = {name: json.loads(text) for name, text in texts.items()}
        findings = [finding._asdict() for finding in self.findings]
        worst = max((each.level for each in self.findings), key=LEVELS.index, default="ok")
        return {**self.facts, "worst": worst, "findings": findings, "tables": tables}

    def write(self, folder: Path | str) -> Path:
        """Write ``findings.json``, ``findings.csv`` and one CSV per table to a folder."""
        folder = Path(folder)
        content = {key: value for key, value in self.as_dict().items() if key != "tables"}
        write_json(folder / "findings.json", content)
        for name, table in {"findings": self.table(), **self.tables}.items():
            write_csv(folder / f"{name}.csv", table)
        return folder


def open_for_checks(config: DataConfig) -> tuple[Pack, Split]:
    """Open, pack and split as `prepare` does, but go on with what is there.

    Images that cannot be read are left out, whatever ``config.unusable`` says. If no split can be
    made, all parts are empty and the split's note says why.
    """
    lenient = config.model_copy(update={"unusable": "leave-out"})
    packed = pack_from(lenient)
    try:
        return packed, split_from(packed.dataset, lenient)
    except InputError as error:
        none = np.zeros(0, dtype=np.int64)
        return packed, Split(none, none, none, "none", "", (str(error),))


def examine(packed: Pack, split: Split, *, config: DataConfig) -> Findings:
    """Examine a packed data set and its split.

    Args:
        packed: The images.
        split: Of ``packed.dataset``.
        config: Gives the rules of head, medium and tail, and the wanted imbalance.

    Returns:
        Findings with the tables ``counts``, ``unreadable``, ``copies``, ``near_duplicates``,
        ``group_leakage``, ``leakage``, ``sources`` and ``power``.
    """
    dataset, names = packed.dataset, packed.dataset.class_names
    if is_split := bool(len(split.train)):
        check_split(split, dataset)
    table, parts = dataset.table, split.parts(len(packed))
    own = split.train if is_split else np.arange(len(packed))
    sizes = np.bincount(packed.labels[own], minlength=len(names))
    groups, by_class = groups_from(config, names, sizes), dict(zip(names, sizes, strict=True))
    of_part = {p: np.bincount(packed.labels[parts == p], minlength=len(names)) for p in PARTS}
    counts = pd.DataFrame({"class": names, "group": [groups[name] for name in names]} | of_part)
    counts = counts.melt(["class", "group"], var_name="split", value_name="n")
    content = same_content(packed)
    found = find_near_duplicates(packed.checked(), np.unique(content))
    copies = table.assign(content=content, part=parts).sort_values(["content", "image"])
    copies = copies.loc[copies["content"].duplicated(keep=False)].reset_index(drop=True)
    copies = copies[["content", "image", "part", "label", "group"]]
    shown = table[["image", "label", "group"]].assign(part=parts)
    near = found[["bits", "correlation", "turn", "first", "second"]]
    for side in ("first", "second"):
        near = near.join(shown.add_suffix(f"_{side}"), on=side)
    near = near.assign(same_group=near["group_first"] == near["group_second"])
    shared = split.group_leakage(dataset)
    leaks = leakage.find_leaks(table, parts, content=content, near_duplicates=found)
    tested, units = packed.labels[split.test], table["group"].to_numpy()[split.test]
    power = detectable_differences(tested, units, class_names=names, groups=groups)
    wanted = config.tail_ratio if config.rule.endswith(("long-tail", "-lt")) else None
    findings = (
        _check_reading(packed),
        *(Finding("note", "opening", None, note) for note in dataset.notes),
        *(Finding("note" if is_split else "fail", "split", None, note) for note in split.notes),
        *(Finding("note", "head to tail", None, note) for note in group_ties(groups, by_class)),
        *((_check_imbalance(counts, wanted=wanted), _check_tested(counts)) if is_split else ()),
        _check_groups(table, shared, leaks, known=dataset.groups_known),
        _check_copies(copies, leaks),
        _check_near_duplicates(near, leaks, flat=found.attrs["flat"]),
        _check_labels(copies, near),
        check_sources(leakage.class_source_association(table)),
        _check_levels(packed),
        _check_shortcuts(packed),
        *((_check_power(power),) if is_split else ()),
    )
    unreadable = pd.DataFrame(packed.left_out.items(), columns=["image", "reason"])
    tables = {"counts": counts, "unreadable": unreadable, "copies": copies, "near_duplicates": near}
    tables |= {"group_leakage": shared, "leakage": leakage.count_leaks(leaks, names)}
    tables |= {"sources": leakage.class_by_source(table, names).reset_index(), "power": power}
    train = counts[counts["split"] == "train"]["n"]
    unknown = table["group"].is_unique and not dataset.groups_known
    facts: dict[str, Any] = {"dataset": dataset.name, "images": len(packed)}
    facts["groups"] = "unknown: each image is its own" if unknown else table["group"].nunique()
    facts |= {"sources": _distinct(table["source"], none="unknown"), "protocol": split.protocol}
    if is_split:
        facts["imbalance"] = f"1:{train.max() / max(train.min(), 1):.0f} in training"
        facts["groups in two parts"] = "groups unknown" if unknown else len(shared)
    else:
        facts["images of each class"] = {name: int(size) for name, size in by_class.items()}
    facts["fingerprint"] = dataset.fingerprint
    return Findings(facts, findings, tables)


def _distinct(names: pd.Series, *, none: str) -> int | str:
    """Count names; one per image, or no name at all, says that nothing is known."""
    count = int(names.nunique())
    return none if count == len(names) or (names == "").all() else count


def _check_reading(packed: Pack) -> Finding:
    broken, total = len(packed.left_out), len(packed) + len(packed.left_out)
    level: Level = "fail" if broken else "ok"
    verdict = f"all {total:,} images can be read"
    if broken:
        verdict = f"{broken:,} of {total:,} images cannot be read; all else is about the others"
    if others := packed.dataset.passed_over:
        verdict += f"; {_counted(len(others), 'other file')} passed over, first {others[0]}"
        level = "fail" if broken else "note"
    return Finding(level, "reading", broken, verdict)


def _check_imbalance(counts: pd.DataFrame, *, wanted: float | None) -> Finding:
    train = counts[counts["split"] == "train"].set_index("class")["n"]
    if train.min() == 0:
        none = ", ".join(train.index[train == 0])
        return Finding("fail", "imbalance", None, f"no training images of {none}")
    ratio = float(train.max() / train.min())
    verdict = (
        f"1:{ratio:.0f} in training, {train.min():,} of {train.idxmin()} "
        f"to {train.max():,} of {train.idxmax()}"
    )
    if wanted and round(1 / wanted) != round(ratio):
        verdict += f"; wanted was 1:{1 / wanted:.0f}"
    return Finding("ok" if ratio < 2 else "note", "imbalance", ratio, verdict)


def _check_tested(counts: pd.DataFrame) -> Finding:
    """Is every class in validation and test, and often enough?"""
    held = counts[counts["split"] != "train"].rename(columns={"class": "name"})
    lacking, few = held[held["n"] == 0], held[(held["n"] > 0) & (held["n"] < FEW)]
    if len(lacking):
        which = some((lacking["name"] + " in " + lacking["split"]).tolist())
        level: Level = "fail" if "test" in set(lacking["split"]) else "warn"
        return Finding(level, "tested", len(lacking), f"no image of {which}")
    if len(few):
        which = some([f"{row.n} of {row.name} in {row.split}" for row in few.itertuples(False)])
        return Finding("warn", "tested", len(few), f"fewer than {FEW} images: {which}")
    least = int(held["n"].min())
    return Finding("ok", "tested", 0, f"every class has {least:,} images or more to be tested on")


def _check_groups(
    table: pd.DataFrame, shared: pd.DataFrame, leaks: pd.DataFrame, *, known: bool
) -> Finding:
    """Do parts share a lesion or patient?"""
    if table["group"].is_unique and not known:
        verdict = "lesions or patients unknown: images of one may lie in two parts unnoticed"
        return Finding("warn", "groups", None, verdict)
    if leaks.empty:
        return Finding("note", "groups", None, "no split: no parts that could share one")
    # An image without a group was made its own.
    single = ~table["group"].duplicated(keep=False)
    alone = int((single & (table["group"] == table["image"])).sum())
    if shared.empty and alone and not known:
        verdict = f"no known group has images in two parts; of {_counted(alone, 'image')} the "
        return Finding("warn", "groups", 0, f"{verdict}lesion or patient is unknown")
    if shared.empty:
        verdict = f"none of {table['group'].nunique():,} groups has images in two parts"
        return Finding("ok", "groups", 0, verdict)
    (test, tested), (val, held) = (_leaked(leaks, "group", part) for part in ("test", "val"))
    verdict = (
        f"{_counted(len(shared), 'group')} in two parts: of {tested:,} test images {test:,} "
        f"({100 * test / max(tested, 1):.0f} %) show one that is in training too, "
        f"of {held:,} for validation {val:,}"
    )
    return Finding("fail" if test or val else "warn", "groups", len(shared), verdict)


def _check_copies(copies: pd.DataFrame, leaks: pd.DataFrame) -> Finding:
    """Is an image there twice, byte for byte or pixel for pixel?"""
    extra = len(copies) - copies["content"].nunique()
    if not extra:
        return Finding("ok", "copies", 0, "no image is there twice")
    test, val = (_leaked(leaks, "copy", part)[0] for part in ("test", "val"))
    verdict = f"{_counted(extra, 'image')} copied from another"
    if test or val:
        verdict += f"; {test:,} of test and {val:,} of validation are in training"
        return Finding("fail", "copies", extra, verdict)
    across = "" if leaks.empty else ", none of them across training and test"
    return Finding("warn", "copies", extra, verdict + across)


def _check_near_duplicates(near: pd.DataFrame, leaks: pd.DataFrame, *, flat: int) -> Finding:
    """Is an image there twice, but saved again, brightened, mirrored or turned?"""
    also = f"; {_counted(flat, 'image')} too flat to be compared" if flat else ""
    if near.empty:
        verdict = f"no near-duplicates found{also}"
        return Finding("note" if flat else "ok", "near-duplicates", 0, verdict)
    apart = int((~near["same_group"]).sum())
    unseen = leaks[leaks["near_duplicate"] & ~leaks["group"] & (leaks["other"] == "train")]
    test = int((unseen["part"] == "test").sum())
    verdict = f"{_counted(len(near), 'near-duplicate pair')}, {apart:,} not of one group"
    if len(unseen):
        verdict += f"; {_counted(test, 'image')} of test and {len(unseen) - test:,} of validation"
        verdict += " have one in training that is not of their group"
    twice = leaks[leaks["near_duplicate"] & ~leaks["group"] & (leaks["other"] == "val")]
    if len(twice):
        verdict += f"; {len(twice):,} of test also in validation"
    level: Level = "warn" if len(unseen) or len(twice) else "note"
    return Finding(level, "near-duplicates", len(near), verdict + also)


def _check_labels(copies: pd.DataFrame, near: pd.DataFrame) -> Finding:
    """Do copies and near-duplicates agree about their class?"""
    sets = int((copies.groupby("content")["label"].nunique() > 1).sum())
    pairs = int((near["label_first"] != near["label_second"]).sum())
    if sets or pairs:
        verdict = f"two labels in {_counted(sets, 'set')} of copies and in "
        verdict += _counted(pairs, "near-duplicate pair")
        return Finding("warn", "labels", sets + pairs, verdict)
    if copies.empty and near.empty:
        return Finding("note", "labels", None, "no image is there twice: no labels to compare")
    return Finding("ok", "labels", 0, "copies and near-duplicates agree about their class")


def check_sources(found: Association) -> Finding:
    """Can the source be mistaken for the class? An interval rules it out, a large p does not."""
    if np.isnan(found.v):
        return Finding("note", "sources", None, "fewer than two known sources: nothing to compare")
    verdict = (
        f"class against source: Cramer's V {found.v:.2f} ({found.low:.2f} to {found.high:.2f}), "
        f"p {found.p:.3f}, {found.groups:,} independent images"
    )
    if found.high < ASSOCIATED[0]:
        return Finding("ok", "sources", found.v, verdict)
    if not found.p <= 0.05:
        return Finding("note", "sources", found.v, f"undecided: {verdict}")
    return Finding("warn" if found.v >= ASSOCIATED[1] else "note", "sources", found.v, verdict)


def _check_levels(packed: Pack) -> Finding:
    """Are grey levels lost, as of 12-bit files that are read as if all 16 bits were used?"""
    few = np.flatnonzero(leakage.count_levels(packed) < FEW_LEVELS)
    mixed = [note for note in packed.dataset.notes if note.endswith("the others have 8")]
    if len(few):
        first = packed.dataset.table["image"].iloc[few[0]]
        verdict = f"{_counted(len(few), 'image')} with fewer than {FEW_LEVELS} of 256 levels"
        level: Level = "warn" if mixed or len(few) > len(packed) / 20 else "note"
        return Finding(level, "levels", len(few), f"{verdict}, first {first}")
    if mixed:
        return Finding("warn", "levels", 0, f"files of 8 and of 16 bits are mixed: {mixed[0]}")
    return Finding("ok", "levels", 0, f"every image has at least {FEW_LEVELS} of 256 levels")


def _check_shortcuts(packed: Pack) -> Finding:
    """Could a network tell the class without looking at what is shown?"""
    found = leakage.find_shortcuts(packed)
    telling = [each for each in found if each.telling]
    shown = [f"{x.feature} tells '{x.name}' from the rest ({x.accuracy:.2f})" for x in telling]
    best = max((each.accuracy for each in found), default=float("nan"))
    if telling:
        verdict = f"{'; '.join(shown)}: balanced accuracy of that alone, 0.50 by chance"
        return Finding("warn" if best >= TELLING[1] else "note", "shortcuts", best, verdict)
    if not np.isfinite(best) or not best:
        return Finding("ok", "shortcuts", None, "no class with enough groups to be told by one")
    verdict = "neither brightness nor size nor format tells a class"
    return Finding("ok", "shortcuts", best, f"{verdict} (at best {best:.2f}, 0.50 by chance)")


def _check_power(power: pd.DataFrame) -> Finding:
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
        f"{tail['n']:,} test images, {tail['units']:,} of them independent"
    )
    return Finding(level, "power", least, verdict)


def _leaked(leaks: pd.DataFrame, kind: str, part: str) -> tuple[int, int]:
    """Count the images of a part that are known from training, and all of the part."""
    own = leaks[(leaks["part"] == part) & (leaks["other"] == "train")]
    return int(own[kind].sum()), len(own)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
