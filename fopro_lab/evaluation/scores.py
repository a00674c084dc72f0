"""Predictions, and their scores: every metric with its interval, as one tidy table.

A table of predictions is what a run writes and what every score is computed from. One row per
image: ``image`` (unique within its split), ``group`` (lesion or patient, "" unknown), ``source``
(scanner or hospital, "" unknown), ``split`` ("val" or "test"), ``label`` (0 to K - 1), then one
column ``logit_<class name>`` per class in label order.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from fopro_lab.config import DataConfig
from fopro_lab.errors import InputError, said_of
from fopro_lab.evaluation import bootstrap, metrics
from fopro_lab.io import atomic_path, say_once

TEXT_COLUMNS = ("image", "group", "source", "split")
SPLITS = ("val", "test")
LOGIT_PREFIX = "logit_"
GROUPS = ("head", "medium", "tail")
OVERALL = (
    *("balanced_accuracy", "worst_class_recall", "accuracy", "macro_f1"),
    *("mcc", "kappa", "auroc", "ece"),
)
# MONICA's head and medium classes by the number of all, configs/medmnist at its commit bfc2570.
MONICA_SIZES = {7: (1, 4), 8: (3, 2), 9: (2, 3), 11: (3, 3)}
Key = tuple[str, str, str]  # scope ("class", "group", "overall"), name, metric
Interval = tuple[float, float, str]  # low, high, how it was made
_WORST, _ACCURACY, _ECE, _BALANCED = (
    ("overall", "all", metric)
    for metric in ("worst_class_recall", "accuracy", "ece", "balanced_accuracy")
)


def class_names(predictions: pd.DataFrame) -> tuple[str, ...]:
    """Return the class names of a table of predictions, in label order."""
    names = [str(column) for column in predictions.columns]
    return tuple(n.removeprefix(LOGIT_PREFIX) for n in names if n.startswith(LOGIT_PREFIX))


def resampling_units(table: pd.DataFrame) -> np.ndarray:
    """Return what a bootstrap draws as a whole: each image's group, or itself if it has none."""
    return table["group"].where(table["group"] != "", "image " + table["image"]).to_numpy(dtype=str)


def check_predictions(predictions: pd.DataFrame, *, name: str = "predictions") -> pd.DataFrame:
    """Validate a table of predictions, which errors call by ``name``, such as a path.

    Returns:
        Exactly the columns that this file's head names: texts ``str``, labels ``int64``, logits
        ``float64``.

    Raises:
        InputError: If a column, label, split or logit is not as documented, or an image repeats.
    """
    with said_of(name):
        for column in (*TEXT_COLUMNS, "label"):
            if column not in predictions:
                got = ", ".join(map(str, predictions.columns)) or "no columns"
                raise InputError(f"expected a column '{column}', got {got}")
        logits = [f"{LOGIT_PREFIX}{class_name}" for class_name in class_names(predictions)]
        if len(logits) < 2:
            wanted = f"a column '{LOGIT_PREFIX}<class>' for each of two classes or more"
            raise InputError(f"expected {wanted}, got {len(logits)}")
        table = predictions[[*TEXT_COLUMNS, "label", *logits]].reset_index(drop=True).copy()
        for column in TEXT_COLUMNS:
            table[column] = table[column].fillna("").astype(str)
        if unknown := sorted(set(table["split"]) - set(SPLITS)):
            raise InputError(f"split: expected 'val' or 'test', got '{unknown[0]}'")
        if table.empty:
            raise InputError("expected at least one image, got none")
        twice = table.loc[table.duplicated(["split", "image"]), ["split", "image"]]
        for split, image in twice.to_numpy():
            raise InputError(f"expected an image once per split, got '{image}' twice in '{split}'")
        for column in ("label", *logits):
            if not pd.api.types.is_numeric_dtype(table[column]):
                raise InputError(f"{column}: expected numbers, got {table[column].dtype}")
        labels, top = table["label"], len(logits) - 1
        for label in labels[labels.isna() | (labels < 0) | (labels > top) | (labels % 1 != 0)]:
            raise InputError(f"label: expected whole numbers 0 to {top}, got {label}")
        for row, column in np.argwhere(~np.isfinite(table[logits].to_numpy(dtype="float64")))[:1]:
            got = f"{table[logits[column]][row]} for image '{table['image'][row]}'"
            raise InputError(f"{logits[column]}: expected finite logits, got {got}: it diverged")
    return table.astype({"label": "int64", **dict.fromkeys(logits, "float64")})


def write_predictions(path: Path | str, table: pd.DataFrame) -> None:
    """Validate a table of predictions and write it as parquet, completely or not at all."""
    checked = check_predictions(table)
    with atomic_path(path) as temporary:
        checked.to_parquet(temporary, index=False)


def read_predictions(path: Path | str) -> pd.DataFrame:
    """Read and validate a table of ``write_predictions``."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        rule = f"expected a parquet table of predictions ({str(error).splitlines()[0]})"
        raise InputError(f"{path}: {rule}; run the training again") from None
    return check_predictions(table, name=str(path))


def class_groups(
    counts: Mapping[str, int], *, rule: str = "rank", sizes: tuple[int, int] | None = None
) -> dict[str, str]:
    """Sort two classes or more into head, medium and tail by their number of training images.

    ``rank`` takes thirds by rank: of K classes K // 3, at least one, are head, the rest is halved
    and an odd one goes to the tail. Eight classes give the published ranks 0-1, 2-4, 5-7 of
    ISIC-2019-LT. ``count`` takes HyperKvasir's thresholds: more than 700 training images is
    head, fewer than 70 tail. ``sizes`` are those of head and medium, if not thirds.

    Returns:
        "head", "medium" or "tail" for each class, the most frequent class first.
    """
    if len(counts) < 2:
        raise InputError(f"counts: expected two classes or more, got {len(counts)}")
    ranked = sorted(counts, key=lambda name: -counts[name])
    if rule == "rank":
        heads = max(1, len(ranked) // 3)
        heads, mediums = sizes or (heads, (len(ranked) - heads) // 2)
        places = [(rank >= heads) + (rank >= heads + mediums) for rank in range(len(ranked))]
    else:
        places = [(counts[name] <= 700) + (counts[name] < 70) for name in ranked]
    return {name: GROUPS[place] for name, place in zip(ranked, places, strict=True)}


def group_ties(groups: Mapping[str, str], counts: Mapping[str, int]) -> list[str]:
    """Say which classes of as many training images, by name, lie in different groups."""
    table = pd.DataFrame({"n": [counts[name] for name in groups], "group": groups.values()}, groups)
    tied = [(n, own["group"]) for n, own in table.groupby("n") if n and own["group"].nunique() > 1]
    texts = [(n, ", ".join(f"{name} ({group})" for name, group in own.items())) for n, own in tied]
    why = "the order of the classes parts them"
    return [f"{text} have {n} training images each, and {why}" for n, text in texts]


def groups_from(
    config: DataConfig, names: Sequence[str], class_counts: Sequence[int] | np.ndarray
) -> dict[str, str]:
    """Sort classes into head, medium and tail by the rule that a config names; see `class_groups`.

    ``auto`` takes what is published: thresholds for HyperKvasir, official folds and others alike,
    MONICA's ranks for its lists, thirds by rank for the rest. ``names`` and ``class_counts``, of
    training, are in label order.
    """
    counts, sizes, published = np.asarray(class_counts), None, config.group_rule == "auto"
    rule = "count" if config.group_rule == "count" else "rank"
    if published and config.rule == "monica":
        sizes = MONICA_SIZES.get(len(names))
    if published and {"hyperkvasir", "balanced-mixup"} & {config.rule, Path(config.dataset).name}:
        rule = "count"
        # Its publishers draw no validation part: our validation images count as training images.
        counts = counts + (config.val_per_class or counts / (1 / config.val_fraction - 1))
    by_name = {str(name): round(n) for name, n in zip(names, counts.tolist(), strict=True)}
    return class_groups(by_name, rule=rule, sizes=sizes)


def check_groups(groups: Mapping[str, str], names: Sequence[str]) -> None:
    """Refuse groups that are not head, medium or tail for each of the classes."""
    if set(groups) != set(names) or not set(groups.values()) <= set(GROUPS):
        rule = f"expected head, medium or tail for each of {', '.join(names)}"
        raise InputError(f"groups: {rule}, got {dict(groups)}")


@dataclass(frozen=True, eq=False)
class AlignedRuns:
    """The images that one or several runs were tested on, in a common order."""

    labels: np.ndarray  # (n,)
    units: np.ndarray  # what the bootstrap draws as a whole, (n,): the group, or the image itself
    logits: list[np.ndarray]  # one array (n, K) per run
    names: tuple[str, ...]  # of the K classes in label order
    groups: dict[str, str]  # head, medium or tail for each class, in the order of the tables

    def keys(self) -> list[Key]:
        """List all that is measured, in the order of the tables."""
        return [
            *(("class", name, "recall") for name in self.groups),
            *(("group", name, "recall") for name in GROUPS if name in self.groups.values()),
            *(("overall", "all", metric) for metric in OVERALL),
        ]

    def members(self, key: Key) -> list[str]:
        """Name the classes that a key covers: one, those of a group, or all."""
        scope, name, _ = key
        if scope == "class":
            return [name]
        return [c for c, group in self.groups.items() if scope == "overall" or group == name]

    def class_sizes(self, *, units: bool = False) -> dict[str, int]:
        """Count the images of each class, or the units that are resampled."""
        counted = pd.DataFrame({"label": self.labels, "unit": self.units})
        counts = (counted.drop_duplicates() if units else counted)["label"].value_counts()
        return {name: int(counts.get(label, 0)) for label, name in enumerate(self.names)}

    def measure(self, logits: np.ndarray, weights: np.ndarray) -> dict[Key, np.ndarray]:
        """Compute all ``keys`` of logits ``(n, K)`` with weights ``(n, R)``: ``(R,)`` or NaN."""
        probabilities = softmax(logits, axis=1)
        answers = (self.labels, logits.argmax(axis=1))
        confusion = metrics.confusion_matrices(*answers, weights, classes=len(self.names))
        recalls = metrics.class_recalls(confusion)
        overall = {
            "balanced_accuracy": metrics.mean_recall(recalls),
            "worst_class_recall": np.nanmin(recalls, axis=1),
            **metrics.agreement(confusion),
            "auroc": metrics.macro_auroc(probabilities, self.labels, weights),
            "ece": metrics.calibration_error(probabilities, self.labels, weights),
        }
        found = {}
        for key in self.keys():
            columns = [self.names.index(name) for name in self.members(key)]
            of_classes = metrics.mean_recall(recalls[:, columns])
            found[key] = overall[key[2]] if key[0] == "overall" else of_classes
        return found


def align(
    tables: Sequence[pd.DataFrame], groups: Mapping[str, str], *, split: str = "test"
) -> AlignedRuns:
    """Bring the predictions of several runs into one order of images, that of their names."""
    parts = []
    for table in tables:
        checked = check_predictions(table)
        part = checked[checked["split"] == split].sort_values("image", ignore_index=True)
        if part.empty:
            got = ", ".join(sorted(set(checked["split"]))) or "an empty table"
            raise InputError(f"split: expected images of '{split}', got {got}")
        parts.append(part)
    first, names = parts[0], class_names(parts[0])
    for part in parts[1:]:
        own = {name: part[name].equals(first[name]) for name in ("image", "label", "group")}
        own["class"] = class_names(part) == names
        if not all(own.values()):
            odd = ", ".join(name for name, same in own.items() if not same)
            rule = f"expected the same classes and images of '{split}' in every run"
            got = f"got {len(first)} and {len(part)} that differ in {odd}; use runs of one split"
            raise InputError(f"predictions: {rule}, {got}")
    check_groups(groups, names)
    labels, units = first["label"].to_numpy(), resampling_units(first)
    logits = [part[[f"{LOGIT_PREFIX}{name}" for name in names]].to_numpy() for part in parts]
    return AlignedRuns(labels, units, logits, names, dict(groups))


def pool(folds: Sequence[AlignedRuns]) -> AlignedRuns:
    """Put the images of all folds, which may share none, together: for counts and names."""
    if len(folds) == 1:
        return folds[0]
    for one, other in combinations(folds, 2):
        both = np.intersect1d(one.units, other.units)
        if len(both):
            got = f"{len(both)} in two folds, such as '{both[0]}'; compare the folds one by one"
            rule = "expected folds that share no tested lesion, patient or image"
            raise InputError(f"runs: {rule}, got {got}")
    labels, units = (np.concatenate([getattr(f, n) for f in folds]) for n in ("labels", "units"))
    return replace(folds[0], labels=labels, units=units, logits=[])


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of a key: for each fold the values of its S runs and how they vary."""

    values: list[np.ndarray]  # (S,)
    parts: list[list[bootstrap.Part]]  # see `mean_error`
    bias: list[float]  # mean of the resamples less the value; 0 for recalls
    one_sided: bool = False  # of a difference: one of the two does not vary over the groups

    def subtract(self) -> "Measured":
        """Subtract the second half of the runs from the first, paired."""
        values, parts, still = [], [], False
        for own, fold in zip(self.values, self.parts, strict=True):
            half = np.eye(len(own) // 2, len(own))
            sides = (half, np.roll(half, len(half), axis=1))
            still |= any(all(np.trace(s @ c @ s.T) <= 1e-20 for c, _ in fold) for s in sides)
            contrast = sides[0] - sides[1]
            values.append(contrast @ own)
            parts.append([(contrast @ covariance @ contrast.T, df) for covariance, df in fold])
        # The bias of the two methods is about the same.
        return Measured(values, parts, bias=[0.0], one_sided=still)

    @property
    def fixed(self) -> bool:
        """Whether nothing varies over the groups of some fold, so that an error would be 0."""
        return any(all(np.trace(c) <= 1e-20 for c, _ in fold) for fold in self.parts)


def tell_one_answer(predictions: pd.DataFrame, name: str) -> None:
    """Say so on stderr if a student names one class alone for test images of several."""
    test = predictions[predictions["split"] == "test"]
    answers = test.filter(like=LOGIT_PREFIX).idxmax(axis=1).unique()
    if len(answers) == 1 and test["label"].nunique() > 1:
        answer = answers[0].removeprefix(LOGIT_PREFIX)
        say_once(f"{name} answers every test image with {answer}, whatever it shows")


def recall_parts(images: AlignedRuns, hits: np.ndarray) -> dict[Key, list[bootstrap.Part]]:
    """Return, of recalls, means and accuracy, the `Part` of each class with images; hits (S, n)."""
    sizes, units = images.class_sizes(), images.class_sizes(units=True)
    of_class: dict[str, bootstrap.Part] = {}
    for label, name in enumerate(images.names):
        own = images.labels == label
        if own.any():
            right = hits[:, own].astype(np.float64)
            covariance = bootstrap.group_covariance(right, images.units[own])
            of_class[name] = covariance, units[name] - 1
    found = {}
    for key in images.keys():
        if key[0] != "overall" or key in (_BALANCED, _ACCURACY):
            shares = {k: sizes[k] if key == _ACCURACY else 1 for k in images.members(key)}
            known = {name: share for name, share in shares.items() if name in of_class}
            whole = sum(known.values())
            parts = [(n / whole, *of_class[name]) for name, n in known.items()]
            found[key] = [(share**2 * covariance, df) for share, covariance, df in parts]
    return found


def measure_folds(
    folds: Sequence[AlignedRuns], *, resamples: int, seed: int
) -> dict[Key, Measured]:
    """Measure every key of every run of each fold, and how the values vary over groups.

    Recalls and their means vary as groups of a class do (`group_covariance`). The other metrics'
    covariance over resamples is raised as the balanced accuracy's would be, whose degrees of
    freedom they have.
    """
    found = {key: Measured([], [], []) for key in folds[0].keys()}
    for number, fold in enumerate(folds):
        # The first fold's draws are those of a split without folds.
        own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        how = {"resamples": resamples, "seed": own_seed if number else seed}
        weights = bootstrap.bootstrap_weights(fold.labels, fold.units, **how)
        plain = np.ones((len(fold.labels), 1))
        measured = [fold.measure(logits, plain) for logits in fold.logits]
        drawn = [fold.measure(logits, weights) for logits in fold.logits]
        predicted = np.stack([logits.argmax(axis=1) for logits in fold.logits])
        recalls = recall_parts(fold, predicted == fold.labels)
        balanced = [(np.trace(covariance), df) for covariance, df in recalls[_BALANCED]]
        total = sum(trace for trace, _ in balanced)
        squares = sum(trace**2 / df for trace, df in balanced if df)
        plugged = sum(trace * df / (df + 1) for trace, df in balanced)
        for key, of_key in found.items():
            of_key.values.append(np.array([run[key][0] for run in measured]))
            replicates = np.stack([run[key] for run in drawn])
            if key in recalls:
                of_key.bias.append(0.0)
                of_key.parts.append(recalls[key])
            else:
                of_key.bias.append(float(replicates.mean() - of_key.values[-1].mean()))
                covariance = np.atleast_2d(np.cov(replicates))
                if np.ptp(replicates, axis=1).max() <= 1e-7:  # weights are of single precision
                    covariance *= 0
                if squares:
                    covariance = covariance * total / plugged
                of_key.parts.append([(covariance, total**2 / squares if squares else 1.0)])
    return found


def mean_of(points: Iterable[np.ndarray]) -> float:
    """Average plain values over seeds, then over folds."""
    return float(np.mean([fold.mean() for fold in points]))


def limits(
    images: AlignedRuns,
    measured: Mapping[Key, Measured],
    *,
    fallback: Callable[[Key, int], Interval],
    shares: bool = False,
) -> tuple[dict[Key, Interval], dict[Key, bootstrap.Error]]:
    """Find the 95 % interval of each value, and its standard error and quantile.

    It is "t": the value and so many errors on both sides; of recalls and accuracies, if ``shares``,
    Wilson's with effective trials ("wilson"). A class of fewer than 5 groups has none ("none: 3
    groups"). Where nothing varies (a class all right or wrong), a class recall, the worst one and
    the accuracy take ``fallback`` of the key and its trials; a mean with such a class, or one of
    few groups, combines the intervals of its classes ("mover"); others have none ("none").
    """
    units = images.class_sizes(units=True)
    trials = {key: sum(units[name] for name in images.members(key)) for key in images.keys()}
    # Whichever class is the worst, it has at least the units of the smallest one.
    trials[_WORST] = min(size for size in units.values() if size)
    found: dict[Key, Interval] = {}
    errors, weak = {}, {}
    for key, own in measured.items():
        value = mean_of(own.values)
        error, quantile = errors[key] = bootstrap.mean_error(own.values, own.parts)
        low, high, kind = value - quantile * error, value + quantile * error, "t"
        share = key[0] != "overall" or key in (_ACCURACY, _BALANCED)
        if shares and share and error and 0 < value < 1:
            effective = value * (1 - value) / error**2
            low, high = bootstrap.wilson_interval(value, effective, quantile=quantile)
            kind = "wilson"
        elif shares and key == _ECE:  # mirrored, as resampling biases it upwards
            bias = float(np.mean(own.bias))
            low, high, kind = max(0.0, low - bias), max(value, high - bias), "basic"
        found[key] = (low, high, kind)
        weak[key] = own.fixed or (key[0] == "class" and trials[key] < bootstrap.FEWEST_GROUPS)
        # A side without an interval of its own gives the difference none; and where no answer
        # varies, confidences alone say nothing of the calibration error.
        weak[key] |= own.one_sided and not share
        if key == _ECE:
            weak[key] = weak[key] or measured[_ACCURACY].fixed or measured[_ACCURACY].one_sided
        if np.isnan([low, high]).any():
            found[key] = (np.nan, np.nan, "none")
        elif weak[key] and (key[0] == "class" or key in (_WORST, _ACCURACY)):
            other_low, other_high, kind = fallback(key, trials[key])
            found[key] = (min(low, other_low), max(high, other_high), kind)
        elif weak[key] and not share:
            found[key] = (np.nan, np.nan, "none")
    for key in measured:
        members = [("class", name, "recall") for name in images.members(key) if units[name]]
        if (key[0] == "group" or key == _BALANCED) and any(weak[member] for member in members):
            lows, highs = (np.array([found[m][side] for m in members]) for side in (0, 1))
            centres = np.array([mean_of(measured[member].values) for member in members])
            low, high = bootstrap.mean_interval(centres, lows, highs)
            found[key] = (min(low, found[key][0]), max(high, found[key][1]), "mover")
    for key in measured:
        if key[0] == "class" and 0 < trials[key] < bootstrap.FEWEST_GROUPS:
            found[key] = (np.nan, np.nan, f"none: {trials[key]} groups")
    return found, errors


def tidy(
    images: AlignedRuns,
    columns: Mapping[str, Mapping[Key, float]],
    intervals: Mapping[Key, Interval],
) -> pd.DataFrame:
    """Lay columns of values and the intervals out as a table; "value" brings its count ``k``."""
    sizes = images.class_sizes()
    lines, drawn = [], bootstrap.resampled(images.labels, images.units)
    for key, (low, high, kind) in intervals.items():
        scope, name, metric = key
        n = sum(sizes[member] for member in images.members(key))
        group = images.groups.get(name, "") if scope == "class" else ""
        line: dict[str, object] = {"scope": scope, "name": name, "group": group, "metric": metric}
        line |= {column: values[key] for column, values in columns.items()}
        # No interval leaves what the metric can be: two seeds may have a quantile of 12.7.
        signed, level = metric in ("mcc", "kappa"), "value" in columns
        most = 2.0 if signed and not level else 1.0
        least = 0.0 if level and not signed else -most
        line |= {"low": np.clip(low, least, most), "high": np.clip(high, least, most), "n": n}
        if "value" in columns:
            counted = n and (scope == "class" or metric == "accuracy")
            line["k"] = round(columns["value"][key] * n, 9) if counted else np.nan
        lines.append({**line, "interval": kind, "resampled": drawn})
    return pd.DataFrame(lines)


def score(
    predictions: pd.DataFrame,
    groups: Mapping[str, str],
    protocol: str,
    *,
    split: str = "test",
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure one run on its test images, or those of "val", each number with its 95 % interval.

    Group recall and balanced accuracy are means of class recalls. A class without test images
    has NaN with ``n`` 0 and is left out of every mean.

    ``groups`` are "head", "medium" or "tail" for each class; their order is the table's. The
    protocol is kept beside each number: never average across protocols.

    Returns:
        Columns ``scope`` ("class", "group", "overall"), ``name``, ``group`` (of a class),
        ``metric``, ``value``, ``low``, ``high``, ``n`` (images), ``k`` (correct ones, of a class
        recall and the accuracy), ``interval`` (how it was made: see ``limits``; "basic" for the
        calibration error), ``resampled`` ("image", or "group" if lesions or patients hold several
        images), ``protocol``.

    Raises:
        InputError: If the table or the groups do not fit.
    """
    how: dict[str, Any] = {"split": split, "resamples": resamples, "seed": seed}
    return score_trainings([[predictions]], groups, protocol, **how)


def score_trainings(
    folds: Sequence[Sequence[pd.DataFrame]],
    groups: Mapping[str, str],
    protocol: str,
    *,
    split: str = "test",
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure the mean over the tables of each fold, one per seed, and over the folds; see `score`.

    Groups of images, with two seeds or more the seeds too, and with two folds or more the folds
    are random effects (`mean_error`), so that the interval covers new images and a new training.
    """
    aligned = [align(tables, groups, split=split) for tables in folds]
    images = pool(aligned)
    measured = measure_folds(aligned, resamples=resamples, seed=seed)
    values = {key: mean_of(own.values) for key, own in measured.items()}

    def closed(key: Key, trials: int) -> Interval:
        return (*bootstrap.wilson_interval(values[key], trials), "wilson")

    intervals, _ = limits(images, measured, fallback=closed, shares=True)
    return tidy(images, {"value": values}, intervals).assign(protocol=protocol)
