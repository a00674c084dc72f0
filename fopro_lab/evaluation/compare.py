"""Paired comparisons of methods over the same test images, seeds and folds; and their levels."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import multimode
from typing import Any

import numpy as np
import pandas as pd

from fopro_lab.config import METHOD_OPTIONS, PromptConfig, TeacherConfig, TrainConfig
from fopro_lab.errors import InputError
from fopro_lab.evaluation import bootstrap, scores
from fopro_lab.evaluation.runs import COSTS, Run
from fopro_lab.evaluation.scores import GROUPS, LOGIT_PREFIX, resampling_units
from fopro_lab.options import REMOVED

_OTHERS = ("worst_class_recall", "macro_f1", "mcc", "auroc", "ece")
HEADLINE = {  # column of `summarise`: scope, name and metric of the tidy table
    "balanced_accuracy": ("overall", "all", "balanced_accuracy"),
    **{group: ("group", group, "recall") for group in GROUPS},
    **{metric: ("overall", "all", metric) for metric in _OTHERS},
}
SECONDS = "train_seconds"  # of all epochs, mean over the runs
_OF_MANIFEST = ("loss_sha256", "distillation_sha256", "refined")  # own code, and what came after
_FOLD = re.compile(r"/fold([\d+]+)$")  # several in a pooled id
_FEWEST_EPOCHS, _STEEP, _CHANCE = 5, 0.03, 0.05  # see `undertrained`
ByMethod = dict[str, dict[str, dict[int, Run]]]  # method, protocol, seed
Pairs = dict[str, tuple[list[Run], list[Run]]]  # of two methods, by protocol


def family(protocol: str) -> str:
    """Return a protocol id without its fold: what the folds of one partition have in common."""
    return _FOLD.sub("", protocol)


def pooled_protocol(protocols: Iterable[str]) -> str:
    """Name several folds of one partition in one id."""
    different = list(dict.fromkeys(protocols))
    if len(different) == 1:
        return different[0]
    numbers = [found.group(1) for found in map(_FOLD.search, different) if found]
    return f"{family(different[0])}/fold{'+'.join(sorted(numbers, key=int))}"


def _sort_out(runs: Sequence[Run], key: Callable[[Run], Any]) -> dict[Any, list[Run]]:
    """Sort runs by a key, in the order in which the keys first come; refuse to sort none."""
    if not runs:
        raise InputError("runs: expected at least one, got none")
    found: dict[Any, list[Run]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return found


def _by_protocol(runs: Sequence[Run]) -> dict[str, list[Run]]:
    return dict(sorted(_sort_out(runs, lambda run: run.protocol).items()))


def group_families(runs: Sequence[Run]) -> list[list[Run]]:
    """Sort runs into lists whose numbers may be averaged.

    Folds of one partition are averaged where no lesion, patient or image is tested twice.
    Published "folds" that are independent draws test some images twice and stay apart, as all
    other protocols do.
    """
    sorted_out: list[list[Run]] = []
    for members in _sort_out(runs, lambda run: family(run.protocol)).values():
        folds = _by_protocol(members)
        parts = (own[0].predictions.query("split == 'test'") for own in folds.values())
        tested = [set(resampling_units(part)) for part in parts] if len(folds) > 1 else []
        twice = any(one & other for one, other in combinations(tested, 2))
        sorted_out += list(folds.values()) if twice else [members]
    return sorted_out


def merge_groups(groups: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Give each class the group that it has in most folds; of two as frequent, the rarer one."""
    return {
        name: GROUPS[max(multimode(GROUPS.index(each[name]) for each in groups))]
        for name in groups[0]
    }


def _by_method(runs: Sequence[Run]) -> ByMethod:
    """Sort runs by method, protocol and seed, and refuse a combination that comes twice."""
    found: ByMethod = {run.method: {} for run in runs}
    for run in sorted(runs, key=lambda run: run.protocol):
        by_seed = found[run.method].setdefault(run.protocol, {})
        if run.seed in by_seed:
            rule = f"expected one run of '{run.method}' with seed {run.seed}"
            got = f"got also {by_seed[run.seed].path}; leave one out"
            raise InputError(f"{run.path}: {rule}, {got}")
        by_seed[run.seed] = run
    return found


def _pairs_of(by_method: ByMethod, method: str, baseline: str) -> Pairs:
    """Pair the runs of two methods by seed, for each protocol with a seed in common."""
    pairs = {}
    for protocol, ours in by_method[method].items():
        theirs = by_method[baseline].get(protocol, {})
        if common := [seed for seed in ours if seed in theirs]:
            pairs[protocol] = [ours[seed] for seed in common], [theirs[seed] for seed in common]
    return pairs


def dropped_lines(runs: Sequence[Run], baseline: str) -> list[str]:
    """Say in one line per run which of all runs a comparison leaves out, even in part, and why."""
    found = {(run.method, run.protocol, run.seed) for run in runs if run.complete}
    others = list(dict.fromkeys(r.method for r in runs if r.complete and r.method != baseline))
    lines = []
    for run in runs:
        partners = others if run.method == baseline else [baseline]
        known = [n for n in partners if run.complete and (n, run.protocol, run.seed) in found]
        lacking = ", ".join(name for name in partners if name not in known)
        reason = f"no run of {lacking} has its seed and fold" if lacking else ""
        if not run.complete:
            lost = run.state == "done"
            reason = "no predictions.parquet" if lost else f"not finished: {run.state}"
        if reason:
            how = f"used against {', '.join(known)} alone" if known else "left out"
            about = f"{run.path.as_posix()} ({run.method}, seed {run.seed})"
            lines.append(f"{how}: {about}: {reason}")
    return lines


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs that differ in more than method and seed; folds of one partition may differ.

    Seeds of one method share every option, methods those that both use: data and steps, teacher and
    the weight of its loss, and how a prompt is built, trained and scheduled. The precision, which
    ``auto`` takes from the processor, and the file of a prompt may differ between folds; the
    precision between seeds, too.
    """
    folds, methods = _by_protocol(runs), _sort_out(runs, lambda run: run.method)
    _expect_same(runs, "protocol", [family(run.protocol) for run in runs], "split")
    _expect_same(runs, "class_names", [list(run.class_names) for run in runs], "split")
    for same in folds.values():
        for key in ("split_fingerprint", "groups"):
            _expect_same(same, key, [run.manifest[key] for run in same], "split")
    pairs = _sort_out(runs, lambda run: (run.protocol, run.seed))
    every = TrainConfig.model_fields.keys() | REMOVED.keys()
    every -= {"method", "seed", "fold", "device", "threads", "precision", "prompt_file"}
    teaching, weight = set(TeacherConfig.model_fields), {"distill_weight"}
    schedule = {"prompted_fraction", "prompted_decay", "warmup_epochs"}
    prompting = {*PromptConfig.model_fields, *(n for n in every if n.startswith("prompt_"))}
    own = {"random_gains", "sampler", "mixup", "mixup_alpha", *METHOD_OPTIONS}
    taught = [run for run in runs if run.parts.is_taught]
    prompted = [run for run in runs if run.parts.learns_prompt]
    by_term = _sort_out(runs, lambda run: run.parts.distillation)
    for members, names in (
        (runs, every - teaching - weight - schedule - prompting - own),
        (taught, teaching),
        (prompted, prompting),
        ([run for run in taught if run.parts.prompt != "none"], schedule),
        *((peers, weight) for term, peers in by_term.items() if term != "none"),
        *((peers, {*every, *_OF_MANIFEST}) for peers in methods.values()),
        *((pair, {"precision"}) for pair in pairs.values()),
        *(([run for run in same if run in prompted], {"prompt_file"}) for same in folds.values()),
    ):
        for name in sorted(names):
            _expect_same(members, name, [_option(run, name) for run in members], "recipe")
    cards = [run.manifest.get("teacher") or {} for run in taught]
    weights = [card.get("sha256") or card.get("state_sha256") for card in cards]  # own networks
    _expect_same(taught, "weights of the teacher", weights, "teacher")


def _expect_same(runs: Sequence[Run], name: str, values: Sequence[Any], what: str) -> None:
    """Refuse runs whose values differ from the first one's."""
    for run, value in zip(runs, values, strict=True):
        if value != values[0]:
            rule = f"expected {values[0]!r} as in {runs[0].path}, got {value!r}"
            raise InputError(f"{run.path}: {name}: {rule}; compare runs of one {what}")


def _option(run: Run, name: str) -> Any:
    """Return an option; a run of a version that lacks it was trained as by its default."""
    if name in _OF_MANIFEST:
        done = run.manifest.get(name) or {}
        return [done["how"], done.get("options"), len(done["runs"])] if "how" in done else done
    known = TrainConfig.model_fields
    value = run.config.get(name, known[name].get_default() if name in known else REMOVED[name])
    if name == "dataset" and (place := Path(value).expanduser()).exists():
        return str(place.resolve())  # a saved preset names it by its whole path
    return list(value) if isinstance(value, tuple) else value


def undertrained(runs: Sequence[Run]) -> dict[str, str]:
    """Say why a method's students are not trained to the end, for each method where that is so.

    Trained for fewer than 5 epochs; or, on average over the method's runs: validation balanced
    accuracy is 3 points or more higher in the last tenth of the epochs (two at least) than in the
    tenth before, or that on test images is less than 5 % of the way from chance to all right.
    """
    found = {}
    for method, own in _sort_out(runs, lambda run: run.method).items():
        epochs, rises, levels = int(_option(own[0], "epochs")), [], []
        for run in own:
            curve = _curve(_source(run, runs), "val_balanced_accuracy")
            last = max(2, len(curve) // 10)
            rises.append((curve[-last:].sum() - curve[-2 * last : -last].sum()) / last)
            labels, answers = _answers(run)
            recalls = pd.Series(labels == answers).groupby(labels).mean()
            levels.append(recalls.mean())
        rise, chance = pd.Series(rises).mean(), 1 / len(recalls)  # of those that have a curve
        if epochs < _FEWEST_EPOCHS:
            found[method] = f"{epochs} epoch{'s' * (epochs > 1)}, fewer than {_FEWEST_EPOCHS}"
        elif rise >= _STEEP:
            many = f"the last {last} epochs in the mean {100 * rise:.0f} points above those before"
            found[method] = f"validation balanced accuracy still rises: {many}"
        elif np.mean(levels) < chance + _CHANCE * (1 - chance):
            found[method] = "balanced accuracy as by chance"
    return found


def compare(
    runs: Sequence[Run],
    baseline: str,
    *,
    resamples: int = 1000,
    seed: int = 0,
    effect: float | None = None,
) -> pd.DataFrame:
    """Subtract a baseline from every other method, paired by test image, seed and fold.

    Intervals are of random effects (see ``score_trainings``), over the seeds that both methods have
    in a fold, and over the folds; a method that shares none is left out (see `dropped_lines`).
    Where nothing varies, the two Wilson intervals are combined
    without pairing ("newcombe"). The p-values are not corrected for the number of rows: name the
    row of interest before looking.

    ``runs`` are finished, of one split, or of several folds of one partition that share no tested
    image; at most one per method, fold and seed. ``effect`` is the difference, a share, that the
    seeds should show; None takes the one observed.

    Returns:
        Columns ``method``, ``baseline``, ``scope``, ``name``, ``group``, ``metric``,
        ``method_value``, ``baseline_value``, ``difference`` (the first minus the second), ``low``,
        ``high``, ``n``, ``interval``, ``resampled``, ``p`` (two-sided, of no difference),
        ``seed_sd`` (standard deviation of the difference over the seeds of a fold),
        ``seeds_needed`` (per fold, for 80 % power by the spread over seeds alone), ``seeds``
        (common ones, the fewest of a fold), ``folds`` (common ones), ``varies``
        ("images", "images and seeds", "images, seeds and folds"), ``verdict`` ("higher" or "lower"
        where the interval excludes 0, with "for this one seed" where no other was trained;
        "cannot decide: N seeds would be needed", or what is needed else; "undertrained: METHODS",
        then without ``p``, see `undertrained`), ``protocol``.

    Raises:
        InputError: If runs do not belong together, or no method has a pair with the baseline.
    """
    check_comparable(runs)
    by_method = _by_method(runs)
    if baseline not in by_method:
        raise InputError(f"baseline: expected one of {', '.join(by_method)}, got '{baseline}'")
    if len(by_method) == 1:
        raise InputError(f"runs: expected another method beside '{baseline}', got none")
    for run in runs:
        scores.tell_one_answer(run.predictions, run.name)
    tables, weak = [], undertrained(runs)
    for method in [name for name in by_method if name != baseline]:
        pairs = _pairs_of(by_method, method, baseline)
        if pairs:
            table = _subtract(pairs, weak=weak, resamples=resamples, seed=seed, effect=effect)
            tables.append(_led_by(table, method=method, baseline=baseline))
    if not tables:
        got = ", ".join(f"{run.method} {run.seed} of {run.protocol}" for run in runs)
        raise InputError(f"runs: expected a seed in common with '{baseline}', got {got}")
    return pd.concat(tables, ignore_index=True)


def compare_all(runs: Sequence[Run]) -> pd.DataFrame:
    """Compare every method with every other: balanced accuracy and the recalls of groups.

    Each pair is compared as by `compare`, over the seeds that it has in common; one without such
    seeds is left out. As many pairs answer one question, p-values are also corrected (Holm) over
    the pairs of one number. Returns the columns of `compare`, both ways round (a pair has two rows
    per number), and ``p_holm`` after ``p``. Raises what it does, also if no two share a seed.
    """
    check_comparable(runs)
    by_method, weak = _by_method(runs), undertrained(runs)
    tables = []
    for method, baseline in combinations(by_method, 2):
        if pairs := _pairs_of(by_method, method, baseline):
            table = _subtract(pairs, weak=weak, resamples=2, seed=0)  # recalls need none
            tables.append(_led_by(table, method=method, baseline=baseline))
    if not tables:
        raise InputError(f"runs: expected two methods of one seed, got {', '.join(by_method)}")
    found = pd.concat(tables, ignore_index=True)
    found = found[(found["scope"] == "group") | (found["metric"] == "balanced_accuracy")]
    found = _correct(found, ["scope", "name", "metric"])
    turned = {"method": "baseline", "method_value": "baseline_value"}
    other = found.rename(columns=turned | {new: old for old, new in turned.items()})
    other = other.assign(difference=-found["difference"], low=-found["high"], high=-found["low"])
    swapped = {"higher": "lower", "lower": "higher"}
    other["verdict"] = found["verdict"].str.replace(
        "higher|lower", lambda word: swapped[word[0]], regex=True
    )
    return pd.concat([found, other[found.columns]], ignore_index=True)


def _correct(table: pd.DataFrame, question: Sequence[str]) -> pd.DataFrame:
    """Put p-values corrected over the rows that answer one question after the plain ones."""
    p_values = table.groupby(list(question), sort=False)["p"]
    corrected = p_values.transform(lambda p: bootstrap.holm(p.to_numpy()))
    table.insert(table.columns.get_loc("p") + 1, "p_holm", corrected)
    return table


def _led_by(table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """Put columns of one value before the others."""
    return table.assign(**columns)[[*columns, *table.columns]]


def _subtract(
    pairs: Pairs,
    *,
    weak: Mapping[str, str],
    resamples: int,
    seed: int,
    effect: float | None = None,
) -> pd.DataFrame:
    """Compare the first runs of each protocol's pair with the second; see ``compare``."""
    groups = merge_groups([run.groups for own, _ in pairs.values() for run in own])
    tables = ([run.predictions for run in own + other] for own, other in pairs.values())
    folds = [scores.align(both, groups) for both in tables]
    images = scores.pool(folds)
    measured = scores.measure_folds(folds, resamples=resamples, seed=seed)
    # Of each fold the first half of the runs is the method's, the second the baseline's.
    ours, theirs = (
        {
            key: scores.mean_of(np.split(fold, 2)[side] for fold in own.values)
            for key, own in measured.items()
        }
        for side in (0, 1)
    )
    apart = {key: own.subtract() for key, own in measured.items()}
    values = {key: scores.mean_of(own.values) for key, own in apart.items()}

    def closed(key: scores.Key, trials: int) -> scores.Interval:
        return (*bootstrap.difference_interval(ours[key], theirs[key], trials), "newcombe")

    intervals, errors = scores.limits(images, apart, fallback=closed)
    columns = {"method_value": ours, "baseline_value": theirs, "difference": values}
    table = scores.tidy(images, columns, intervals)
    table["p"] = [
        bootstrap.interval_p_value(values[key], low, high, quantile=errors[key][1])
        for key, (low, high, _) in intervals.items()
    ]
    table["seed_sd"] = [bootstrap.seed_spread(own.values) for own in apart.values()]
    shown = [values[key] if effect is None else effect for key in apart]
    each = zip(apart.values(), shown, strict=True)
    table["seeds_needed"] = [bootstrap.seeds_needed(own.values, asked) for own, asked in each]
    seeds = [len(own) for own, _ in pairs.values()]
    table["seeds"], table["folds"] = min(seeds), len(folds)
    varied = ["images", *["seeds"] * (max(seeds) > 1), *["folds"] * (len(folds) > 1)]
    table["varies"] = " and ".join([", ".join(varied[:-1]), varied[-1]] if varied[1:] else varied)
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    if names := [own[0].method for own in next(iter(pairs.values())) if own[0].method in weak]:
        table["p"], table["verdict"] = np.nan, f"undertrained: {', '.join(names)}"
    table["protocol"] = pooled_protocol(pairs)
    return table


def is_clear(row: Mapping[Any, Any]) -> bool:
    """Whether an interval excludes zero, and both methods are trained to the end."""
    weak = str(row.get("verdict", "")).startswith("undertrained")
    return bool(row["low"] > 0 or row["high"] < 0) and not weak


def _verdict(row: Mapping[Any, Any]) -> str:
    """Say what a difference decides, or how many seeds would."""
    if is_clear(row):
        how = " for this one seed" if row["seeds"] == 1 else ""  # its spread is not known
        return ("higher" if row["low"] > 0 else "lower") + how
    if np.isnan(row["low"]):
        return "cannot decide: no interval"
    needed = row["seeds_needed"]
    if needed <= row["seeds"]:
        return "not clear: more images needed"
    if np.isnan(needed):
        return "cannot decide: 1 seed, few images"  # over which alone it includes zero
    number = f"{needed:.0f}" if needed < 1000 else "1000 or more"
    return f"cannot decide: {number} seeds would be needed"


def score_runs(runs: Sequence[Run], *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Score every protocol and method, averaged over its seeds, and over folds where that is fair.

    Finished runs come once per protocol, method and seed. Folds of one partition are put together
    where no image is tested twice.

    Returns:
        The columns of ``score`` after ``method``, ``seeds`` (how many, the fewest of a fold) and
        ``folds``; methods in the order of the runs.

    Raises:
        InputError: If runs of one protocol were not tested on the same images, or come twice.
    """
    tables = []
    for members in group_families(runs):
        check_comparable(members)
        groups = merge_groups([run.groups for run in members])
        for method, folds in _by_method(members).items():
            tested = [[run.predictions for run in by_seed.values()] for by_seed in folds.values()]
            about = (tested, groups, pooled_protocol(folds))
            table = scores.score_trainings(*about, resamples=resamples, seed=seed)
            trained = {"seeds": min(map(len, tested)), "folds": len(tested)}
            tables.append(_led_by(table, method=method, **trained))
    return pd.concat(tables, ignore_index=True)


def summarise(runs: Sequence[Run], *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Put the headline numbers of every protocol and method in one row; see `score_runs`.

    Returns:
        Columns ``protocol``, ``method``, ``seeds``, ``folds``, ``n`` (test images), then each
        headline metric with ``_low`` and ``_high``: balanced_accuracy, head, medium, tail (mean
        class recalls), worst_class_recall, macro_f1, mcc, auroc, ece; then ``parameters``,
        ``macs`` and ``megabytes`` of what classifies one image, NaN for runs of older versions;
        ``train_seconds``, of all epochs, mean over runs: processor time, on a GPU wall time;
        and what others report: ``group_mean`` of head, medium and tail (MONICA), ``mcc_median``,
        the median over folds of the mean over seeds (Balanced-MixUp).
    """
    from sklearn.metrics import matthews_corrcoef

    table = score_runs(runs, resamples=resamples, seed=seed)
    lines = []
    for (protocol, method), part in table.groupby(["protocol", "method"], sort=False):
        by_key = part.set_index(["scope", "name", "metric"])
        whole = by_key.loc["overall", "all", "balanced_accuracy"]
        line = {"protocol": protocol, "method": method}
        line |= {column: whole[column] for column in ("seeds", "folds", "n")}
        for column, key in HEADLINE.items():
            row = by_key.loc[key] if key in by_key.index else {}
            for end, name in (("", "value"), ("_low", "low"), ("_high", "high")):
                line[f"{column}{end}"] = row.get(name, np.nan)
        own = [run for run in runs if (run.method, run.protocol) == (method, protocol)]
        both = (method, family(protocol))  # of the folds that are put together
        own = own or [run for run in runs if (run.method, family(run.protocol)) == both]
        cost: dict[str, Any] = next((c for r in own if (c := r.manifest.get("student"))), {})
        line |= {name: cost.get(name, np.nan) for name in COSTS}
        on_cpu = [str(run.manifest.get("device", "cpu")).startswith("cpu") for run in own]
        spent = [_curve(r, "cpu_" * c + "seconds").sum() for r, c in zip(own, on_cpu, strict=True)]
        line[SECONDS] = pd.Series(spent).mean()  # of those that have it
        folds = _by_protocol(own).values()
        line["group_mean"] = float(np.mean([line[group] for group in GROUPS]))
        mcc = [np.mean([matthews_corrcoef(*_answers(run)) for run in fold]) for fold in folds]
        line["mcc_median"] = float(np.median(mcc))
        lines.append(line)
    return pd.DataFrame(lines)


def histories(runs: Sequence[Run]) -> pd.DataFrame:
    """Put the learning curves of runs below each other, for a figure; refined ones have none.

    Returns:
        Their columns, ``method``, ``seed`` (of which split, too) and ``kept``, of an epoch.
    """
    trained = [run for run in runs if "refined" not in run.manifest]
    of_run = [
        run.history.assign(
            method=run.method,
            seed=f"{run.protocol}, seed {run.seed}",
            kept=run.history["epoch"] == run.manifest.get("best_epoch"),
        )
        for run in trained
    ]
    return pd.concat(of_run, ignore_index=True) if of_run else pd.DataFrame()


def _curve(run: Run, column: str) -> np.ndarray:
    """Return a column of the history; NaN if refined from another run, or of before 0.2."""
    try:
        return run.history[column].to_numpy(dtype=float)
    except (InputError, KeyError):
        return np.array([np.nan])


def _source(run: Run, runs: Sequence[Run]) -> Run:
    """Find what a run was refined from among others, whatever folder holds them; or itself."""
    names = {Path(each).name for each in run.manifest.get("refined", {}).get("runs", ())}
    for each in runs if names else ():
        same = (each.name in names, each.seed, each.protocol) == (True, run.seed, run.protocol)
        if same and run.method.startswith(each.method):
            return each
    return run


def _answers(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes of the test images, and what the student says."""
    test = run.predictions.query("split == 'test'")
    return test["label"].to_numpy(), test.filter(like=LOGIT_PREFIX).to_numpy().argmax(axis=1)


def compare_teachers(
    runs: Sequence[Run], pairs: Iterable[tuple[str, str]], *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Compare pairs of methods for every teacher, student and partition into folds.

    A method without a teacher is compared with every teacher of the same student and images. As
    several teachers answer one question, p-values are also corrected (Holm) over the teachers of
    one pair, student and number, not over several pairs and numbers; so is the verdict.

    ``runs`` are finished, at most one per student, partition, teacher, method, fold and seed;
    ``pairs`` are method and baseline, and one that nothing was trained for is left out.

    Returns:
        The columns of `compare` after ``teacher`` (name, "none" where neither method has one) and
        ``student``, and ``p_holm`` after ``p``.

    Raises:
        InputError: If no pair can be compared, or as `compare`.
    """
    pairs = list(pairs)
    tables = []
    for student, teacher, members in _settings(runs):
        for method, baseline in pairs:
            two = [run for run in members if run.method in (method, baseline)]
            taught = any(run.parts.is_taught for run in two)
            if {run.method for run in two} == {method, baseline} and taught == bool(teacher):
                table = compare(two, baseline, resamples=resamples, seed=seed)
                tables.append(_led_by(table, teacher=teacher or "none", student=student))
    if not tables:
        wanted = ", ".join(f"{method} against {baseline}" for method, baseline in pairs)
        had = ", ".join(dict.fromkeys(run.method for run in runs))
        raise InputError(f"runs: expected both methods of a pair ({wanted}), got {had}")
    question = ["method", "baseline", "student", "scope", "name", "metric"]
    found = _correct(pd.concat(tables, ignore_index=True), question)
    found.loc[(found["p"] < 0.05) & (found["p_holm"] >= 0.05), "verdict"] = "not clear by Holm"
    return found


def summarise_teachers(
    runs: Sequence[Run], *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Put the headline numbers of every student, teacher and method in one row; see `summarise`."""
    tables = []
    settings = _sort_out(runs, lambda run: (_student_of(run), teacher_of(run)))
    for (student, teacher), members in settings.items():
        table = summarise(members, resamples=resamples, seed=seed)
        tables.append(_led_by(table, student=student, teacher=teacher or "none"))
    return pd.concat(tables, ignore_index=True)


def teacher_of(run: Run) -> str:
    """Name a run's teacher, with its image size where one was chosen; empty without a teacher."""
    if not run.parts.is_taught:
        return ""
    size = int(run.config.get("teacher_size", 0))
    name = str(run.config.get("teacher", "builtin")).split(":")[-1]
    return f"{name}, {size} px" if size else name


def _student_of(run: Run) -> str:
    return str(run.config.get("student", "small"))


def _settings(runs: Sequence[Run]) -> Iterator[tuple[str, str, list[Run]]]:
    """Yield student, teacher and their runs with those of no teacher; partitions stay apart."""
    for own in group_families(runs):
        for student, members in _sort_out(own, _student_of).items():
            by_teacher = _sort_out(members, teacher_of)
            if alone := by_teacher.pop("", []):
                yield student, "", alone
            for teacher, taught in by_teacher.items():
                yield student, teacher, alone + taught
