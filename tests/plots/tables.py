"""Small tables in the form that each plot takes, and one drawing of every plot."""

from itertools import product

import matplotlib
import numpy as np
import pandas as pd

from fopro_lab import plots
from fopro_lab.evaluation.prior_shift import PriorShift
from fopro_lab.evaluation.runs import MaskHistory
from tests.evaluation.toy_runs import run_of

matplotlib.use("agg")
PROTOCOL = "toy/64px"


def scores(methods=("bsm", "fopro")):
    """Three classes, their groups and the whole, as `score_runs` gives them."""
    lines = [
        ("class", "df", "tail", "recall", 0.5, 6),
        ("class", "nv", "head", "recall", 0.9, 400),
        ("class", "mel", "medium", "recall", 0.7, 90),
        ("group", "head", "", "recall", 0.9, 400),
        ("group", "medium", "", "recall", 0.7, 90),
        ("group", "tail", "", "recall", 0.5, 6),
        ("overall", "all", "", "balanced_accuracy", 0.7, 496),
        ("overall", "all", "", "auroc", 0.8, 496),
    ]
    one = pd.DataFrame(lines, columns=["scope", "name", "group", "metric", "value", "n"])
    table = pd.DataFrame({"method": methods}).merge(one, how="cross")
    better = (table["method"] != methods[0]) & table["name"].isin(["df", "tail"])
    value = table["value"] = table["value"] + 0.1 * better
    table = table.assign(low=value - 0.1, high=value + 0.05, k=value * table["n"], seeds=2)
    return table.assign(interval="bootstrap", resampled="group", protocol=PROTOCOL)


def differences():
    table = scores(("ekd", "fopro")).rename(columns={"value": "difference"})
    table["difference"] = np.where(table["method"] == "ekd", 0.02, 0.20)
    table["low"], table["high"] = table["difference"] - 0.1, table["difference"] + 0.1
    return table.assign(baseline="bsm", varies="images and seeds", p=0.5, seed_sd=0.03)


def all_pairs():
    """Three methods; the last beats the first clearly, the second nobody."""
    values = {"bsm": 0.4, "ekd": 0.42, "fopro": 0.5}
    pairs = [(a, b) for a, b in product(values, values) if a != b]
    table = pd.DataFrame(pairs, columns=["method", "baseline"])
    table["difference"] = [values[a] - values[b] for a, b in pairs]
    table["p_holm"] = np.where(table["difference"].abs() > 0.09, 0.01, 0.9)
    kinds = [("overall", "all", "balanced_accuracy"), ("group", "tail", "recall")]
    kinds = pd.DataFrame(kinds, columns=["scope", "name", "metric"])
    return table.merge(kinds, how="cross").assign(n=120, seeds=3, folds=3, protocol=PROTOCOL)


def levels():
    """Two methods as `summarise` gives them; the time of one is not known."""
    table = pd.DataFrame({"method": ["bsm", "ekd"], "balanced_accuracy": [0.5, 0.6]})
    table["tail"] = [0.3, 0.2]
    for name in ("balanced_accuracy", "tail"):
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - 0.1, table[name] + 0.1
    return table.assign(n=120, train_seconds=[120, np.nan], parameters=2e6, protocol=PROTOCOL)


def claims():
    """Three teachers: one clear gain, one clear loss, one that only looks clear uncorrected."""
    means = [(0.04, 0.02, 0.003), (-0.05, 0.02, 0.002), (0.03, 0.028, 0.06)]
    teachers = pd.DataFrame(means, columns=["difference", "half", "p_holm"])
    teachers["teacher"] = ["one", "two", "three"]
    names = [("overall", "all", "balanced_accuracy"), ("group", "tail", "recall")]
    names += [("class", "tail", "recall")]  # a class that is called like the group
    table = teachers.merge(pd.DataFrame(names, columns=["scope", "name", "metric"]), how="cross")
    change, half = table["difference"], table.pop("half")
    table = table.assign(low=change - half, high=change + half, method_value=0.4 + change)
    trained = {"student": "small", "method": "ekd", "baseline": "bsm", "seeds": 3, "folds": 3}
    compared = {"baseline_value": 0.4, "n": 120, "varies": "images, seeds and folds"}
    return table.assign(**trained, **compared, protocol=PROTOCOL)


def history():
    runs = pd.DataFrame({"method": ["ekd", "ekd", "bsm", "bsm"], "seed": [0, 1, 0, 1]})
    epochs = {"epoch": [1, 2, 3], "loss": [3.0, 2, 1], "val_balanced_accuracy": [0.1, 0.3, 0.2]}
    return runs.merge(pd.DataFrame(epochs), how="cross").assign(protocol=PROTOCOL)


def prompt_training():
    table = {"step": [0, 1, 2, 3], "task": [2.0, 1.5, 1.2, 1.1], "kept": [0, 1, 0, 0]}
    checks = {"val_task": [np.nan, 1.9, np.nan, 2.1], "val_drift": [np.nan, 0.1, np.nan, 0.2]}
    return pd.DataFrame(table | checks).assign(protocol=PROTOCOL)


def rings(**columns):
    base = {"ring": [0, 1, 2], "low": [0.0, 0.25, 0.5], "high": [0.25, 0.5, 0.75], "n": 64}
    return pd.DataFrame(base | columns).assign(protocol=PROTOCOL)


def radial_gain():
    spread = {"gain_low": [0.9, 0.7, 0.5], "gain_high": [1.6, 1.2, 0.9]}
    return rings(gain=[1.4, 1.0, 0.7], **spread)


def spectra():
    return pd.concat(
        rings(scope="class", name=name, log_amplitude=[k - 1.0, k - 2.0, k - 3.0], difference=0.1)
        for k, name in enumerate("ab")
    )


def ring_response():
    drift = {"drift": [0.3, 0.2, 0.1], "drift_low": 0.05, "drift_high": 0.4}
    return pd.concat(rings(gain=gain, drift_per_energy=[1.0, 2, 3], **drift) for gain in (0.0, 2.0))


def responses():
    relative = {"a": np.array([0.5, 1, 2]), "b": np.array([2, 1, 0.5])}
    return pd.concat(
        rings(teacher=name, gain=0.0, relative=r, relative_low=0.9 * r, relative_high=1.1 * r)
        for name, r in relative.items()
    )


def bands(teacher="a", scale=1.0, gain=0.0):
    """One class with a clear loss, and the mean of all classes."""
    nv = rings(name="nv", scope="class", group="head", change=[-0.5, 0.02, np.nan])
    nv = nv.assign(change_low=[-0.6, -0.1, np.nan], change_high=[-0.4, 0.1, np.nan])
    whole = rings(name="all", scope="overall", group="", change=[-0.2, 0.0, 0.1])
    whole = whole.assign(change_low=[-0.3, -0.1, -0.2], change_high=[0.1, 0.1, 0.2])
    table = pd.concat([nv, whole]).assign(gain=gain, teacher=teacher, classifier="probe", cells=3)
    table["change"] *= scale
    return table.assign(survives=(table["low"] == 0) & (table["name"] == "nv"))


def distances():
    row = {"between": 0.9, "within": 0.2, "difference": 0.7, "difference_low": 0.6}
    row |= {"difference_high": 0.8, "p_holm": 0.0025, "n": 96, "units": 80, "protocol": PROTOCOL}
    pairs = [{"teacher": "a", "other": "b"}, {"teacher": "a", "other": "c"}]
    return pd.DataFrame([pair | row for pair in pairs])


def counts():
    return pd.DataFrame(
        {"class": ["df", "nv"] * 2, "split": ["train"] * 2 + ["test"] * 2, "n": [20, 5000, 4, 90]}
    ).assign(group=["tail", "head"] * 2, protocol=PROTOCOL)


def audit(stages=("resize", "augment, fused"), steps=("box", "bilinear")):
    parts = []
    for stage, (place, step), source in product(stages, enumerate(steps), ("all", "sharp")):
        part = rings(stage=stage, step=step, source=source, reference=f"before {stage}", size=64)
        ratio = -part["low"] * (place + 1) - 0.1 * (source != "all")
        around = {"interval_low": ratio - 0.2, "interval_high": ratio + 0.1}
        parts.append(part.assign(log_ratio=ratio, **around))
    return pd.concat(parts)


def prior_shift():
    run = run_of(method="ce", protocol=PROTOCOL, class_counts=[900, 120, 30, 10])
    return PriorShift([run], resamples=20)


def heat_map():
    row = {"classifier": "probe", "drift": 0.1, "error": 0.5, "clean_error": 0.2, "size": 4.0}
    return pd.DataFrame([row | {"n": 64, "protocol": PROTOCOL}])


def mask_history():
    planes, gains = np.full((3, 8, 8), 2.0), np.tile([2.0, 1.0, 0.5], (3, 1))
    edges = np.array([0.0, 0.25, 0.5, 0.75])
    return MaskHistory("prompt", [(1, 0), (1, 3), (1, 6)], planes, gains, edges)


CONTROL_GAINS = ("none", "inverse", "reference", "natural", "learned", "contrast", "random")


def control():
    keys = [("clean", "none"), *(("degraded", name) for name in CONTROL_GAINS)]
    columns = ["split", "input", "gain", "drift", "balanced_accuracy", "low", "high"]
    return pd.DataFrame([
        (split, *key, 0.1, 0.4 + 0.01 * place, 0.3, 0.5)
        for split in ("1", "2") for place, key in enumerate(keys)
    ], columns=columns).assign(protocol=PROTOCOL)  # fmt: skip


def control_gains():
    names = ["inverse", "inverse", "learned", "learned"]
    places = {"frequency": [0.1, 0.5] * 2, "factor": [1.0, 4.0, 1.0, 3.0]}
    return pd.DataFrame({"split": "2", "gain": names, "draw": 0, **places})


def gain_benefits():
    conditions = [("clean", 0.0), ("low-pass", 0.2), ("low-pass", 0.05), ("noise", 0.1)]
    return pd.DataFrame([
        {"kind": kind, "severity": severity, "gain": gain, "drift": 0.1, "without": 0.4,
         "difference": 0.01 * place, "low": -0.02, "high": 0.05}
        for kind, severity in conditions
        for place, gain in enumerate(("reference", "learned", "random"))
    ]).assign(protocol=PROTOCOL)  # fmt: skip


def changes():
    """One image, which the first method has right."""
    parts = [rings(method=m, answered=a) for m, a in (("bsm", "df"), ("fopro", "nv"))]
    table = pd.concat(parts).assign(image="a", group="tail", attribution=0.5)
    return table.assign(**{"class": "df"}, right=table["answered"] == "df")


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3)).astype(np.uint8)
EVERY = {
    "plot_all_pairs": (plots.plot_all_pairs, all_pairs()),
    "plot_changes": (
        lambda table: plots.plot_changes(table, IMAGES[:1], [np.eye(4)[None]] * 2),
        changes(),
    ),
    "plot_claim": (plots.plot_claim, claims()),
    "plot_class_bands": (plots.plot_class_bands, bands()),
    "plot_class_counts": (plots.plot_class_counts, counts()),
    "plot_class_recall": (plots.plot_class_recall, scores()),
    "plot_comparison": (plots.plot_comparison, differences()),
    "plot_control": (
        lambda table: plots.plot_control(table, control_gains(), images=1470),
        control(),
    ),
    "plot_cost": (plots.plot_cost, levels()),
    "plot_gain_benefits": (
        lambda table: plots.plot_gain_benefits(table, images=900),
        gain_benefits(),
    ),
    "plot_gain": (plots.plot_gain, np.ones((8, 5))),
    "plot_group_recall": (plots.plot_group_recall, scores()),
    "plot_heat_map": (lambda table: plots.plot_heat_map(np.eye(8), table), heat_map()),
    "plot_history": (plots.plot_history, history()),
    "plot_images": (lambda images: plots.plot_images(images, list("abcde")), IMAGES),
    "plot_mask_history": (lambda history: plots.plot_mask_history([history]), mask_history()),
    "plot_pipeline": (plots.plot_pipeline, audit()),
    "plot_preferences": (plots.plot_preferences, distances()),
    "plot_priors": (plots.plot_priors, prior_shift()),
    "plot_prompt_training": (plots.plot_prompt_training, prompt_training()),
    "plot_radial_gain": (plots.plot_radial_gain, radial_gain()),
    "plot_ring_response": (plots.plot_ring_response, ring_response()),
    "plot_slopes": (plots.plot_slopes, scores()),
    "plot_spectra": (plots.plot_spectra, spectra()),
    "plot_teacher_glyphs": (plots.plot_teacher_glyphs, responses()),
    "plot_teacher_responses": (plots.plot_teacher_responses, responses()),
}


def draw(name):
    """Draw a plot of its table; return the figure and the table."""
    plot, table = EVERY[name]
    drawn = plot(table)
    return drawn if hasattr(drawn, "savefig") else drawn.get_figure(root=True), table


def texts(ax):
    return [text.get_text() for text in ax.texts]
