"""Tables for people: levels and paired differences in per cent, shown, as LaTeX and as Markdown."""

from collections.abc import Sequence
from typing import Any, get_args

import pandas as pd

from fopro_lab.config import Sampler
from fopro_lab.errors import InputError, printable
from fopro_lab.evaluation.compare import HEADLINE, is_clear
from fopro_lab.io import as_markdown

_NAMES = ["Student", "Teacher", "Method"]
COLUMNS = ("balanced_accuracy", "head", "medium", "tail")
METHOD_LABELS = {"ce": "cross-entropy", "bsm": "balanced softmax", "ekd": "EKD",
                 "fopro": "FoPro-KD", "random": "random gains"}  # fmt: skip
_COSTS = {  # column of `summarise`: title, and unit
    "parameters": ("Parameters (M)", 1e6), "macs": ("MACs (M)", 1e6),
    "megabytes": ("Size (MB)", 1), "train_seconds": ("CPU or GPU (min)", 60)}  # fmt: skip
_PARTS = {"ldam": "LDAM", "ldam-drw": "LDAM-DRW", "focal": "focal loss", "fitnet": "FitNet",
          "class-balanced": "class-balanced loss", "logit-adjustment": "logit adjustment",
          "crt": "cRT"}  # fmt: skip
_PARTS |= {"balanced-mixup": "Balanced-MixUp"}
_PARTS |= {f"{n}-sampler": f"{n} sampling" for n in get_args(Sampler)}
_PARTS |= {name: name.upper() for name in ("kd", "dkd", "rkd", "sp", "vptta", "lws", "tta")}
_TITLES = {"worst_class_recall": "Worst class", "macro_f1": "Macro F1"}
_TITLES |= {metric: metric.upper() for metric in ("mcc", "auroc", "ece")}
FOUND = {"balanced_accuracy": "Balanced accuracy", "tail": "Tail recall"}
_WORDS = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater"}
_ESCAPED = {letter: rf"\text{word}{{}}" for letter, word in (_WORDS | {"|": "bar"}).items()}
_ESCAPED |= {"[": "{[}", "*": "{*}"}  # else arguments of the end of the row before
_LATEX = str.maketrans(_ESCAPED | {letter: f"\\{letter}" for letter in "&%$#_{}"})


def method_label(method: str) -> str:
    """Write a method's label in words: ``bsm+kd`` is "BSM + KD"."""
    known = {**_PARTS, **METHOD_LABELS, "bsm": "BSM"}
    known |= {} if method.startswith("fopro") else {"fopro": "Fourier prompt"}
    if "&" in method:
        several, _, how = method.rpartition("+")
        return f"{' & '.join(map(method_label, several.split('&')))} + {known.get(how, how)}"
    parts = (known.get(part, part) for part in method.split("+"))
    return METHOD_LABELS.get(method) or " + ".join(parts)


def with_interval(
    value: float, low: float, high: float, *, signed: bool = False, digits: int | None = None
) -> str:
    """Write a share, or a difference with its sign, and its interval in per cent; NaN is "n/a"."""
    if pd.isna(value):
        return "n/a"
    form = f"{{:{'+' if signed else ''}.{int(signed) if digits is None else digits}f}}"
    texts = [form.format(100 * each) for each in (value, low, high) if pd.notna(each)]
    shown, *ends = (text if text.strip("+-0.") else text.strip("+-") for text in texts)
    return f"{shown} [{', '.join(ends)}]" if len(ends) == 2 else f"{shown} (no interval)"


def level_table(levels: pd.DataFrame, *, columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """Lay levels of ``summarise`` or ``summarise_teachers`` out as text, in per cent.

    A row per method has student and teacher if the levels do, the method, and headline columns with
    95 % intervals; then what the student costs, if any run says so.
    """
    named = [name for name in ("student", "teacher", "method") if name in levels]
    table = levels[named].rename(columns=str.capitalize)
    table["Method"] = table["Method"].map(method_label)
    for column in columns:
        ends = levels[[column, f"{column}_low", f"{column}_high"]].to_numpy()
        table[_title(column)] = [with_interval(*row, digits=1) for row in ends]
    for column, (title, unit) in _COSTS.items():
        if column in levels and levels[column].notna().any():
            table[title] = [f"{v / unit:.3g}" if pd.notna(v) else "n/a" for v in levels[column]]
    return table


def difference_table(
    differences: pd.DataFrame, *, columns: Sequence[str] = COLUMNS, bold: str = "{}"
) -> pd.DataFrame:
    """Lay differences of ``compare`` out as text, in percentage points with 95 % intervals.

    The best comes first. ``columns`` are headline columns; ``bold`` is the form of one whose
    interval excludes zero.
    """
    best = rows_of(differences, COLUMNS[0]).sort_values("difference", ascending=False)
    methods = list(dict.fromkeys([*best["method"], *differences["method"]]))
    labels, baseline = pd.Series(methods).map(method_label), _baseline(differences)
    table = pd.DataFrame({"Method": labels + f" minus {baseline}"})
    for column in columns:
        rows = rows_of(differences, column).set_index("method").reindex(methods)
        texts = []
        for row in rows.to_dict("records"):
            text = with_interval(row["difference"], row["low"], row["high"], signed=True)
            texts.append(bold.format(text) if is_clear(row) else text)
        table[_title(column)] = texts
    return table


def latex_tables(levels: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Write levels and paired differences as two LaTeX tables, for the package booktabs.

    Bold is a difference whose interval excludes zero. ``levels`` are of ``summarise``,
    ``differences`` of ``compare`` for the same runs; several protocols are refused.
    """
    texts = [r"% needs \usepackage{booktabs}"]
    tables = _both(levels, differences, bold=r"\textbf{{{}}}")
    for (caption, table), label in zip(tables, ("tab:levels", "tab:differences"), strict=True):
        names = table.columns.intersection(_NAMES)
        cells = table.map(lambda text: text.replace("-", "$-$"))  # before numbers no hyphen
        cells[names] = table[names].map(lambda text: printable(text).translate(_LATEX))
        look: dict[str, Any] = {"position_float": "centering", "hrules": True, "label": label}
        look |= {"column_format": "l" + "r" * (cells.shape[1] - 1)}
        look |= {"caption": printable(caption).translate(_LATEX)}
        texts.append(cells.style.hide(axis="index").to_latex(**look))
    return "\n".join(texts)


def markdown_tables(levels: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Write the same two tables as Markdown; see `latex_tables`."""
    texts = []
    for caption, table in _both(levels, differences, bold="**{}**"):
        plain = table.assign(**table[table.columns.intersection(_NAMES)].map(as_markdown))
        look = {"colalign": ("left", *["right"] * (table.shape[1] - 1)), "disable_numparse": True}
        text = plain.to_markdown(index=False, **look)
        texts.append(f"{as_markdown(caption)}\n\n{text}\n")
    return "\n".join(texts)


def _both(
    levels: pd.DataFrame, differences: pd.DataFrame, *, bold: str
) -> list[tuple[str, pd.DataFrame]]:
    """Return caption and texts of the levels, and of the differences."""
    protocols = list(levels["protocol"].unique())
    if len(protocols) != 1:
        raise InputError(f"levels: expected one protocol, got {', '.join(map(str, protocols))}")
    baseline = _baseline(differences)
    folds = f", {_range(levels['folds'])} folds" if levels["folds"].max() > 1 else ""
    of_levels = (
        f"In per cent, with 95 % intervals, on {int(levels['n'].max())} test images, mean of "
        f"{_seeds(levels)}{folds}. Protocol {protocols[0]}."
    )
    of_differences = (
        f"Paired differences to {baseline} in percentage points, {_seeds(differences, 'common ')}, "
        f"with 95 % intervals over {', '.join(differences['varies'].unique())}. "
        f"Bold: the interval excludes zero; intervals are not corrected for their number."
    )
    weak = differences.loc[differences["verdict"].str.startswith("undertrained"), "verdict"]
    of_differences += "".join(f" No verdict, {text}." for text in weak.unique())
    tables = level_table(levels), difference_table(differences, bold=bold)
    return list(zip((of_levels, of_differences), tables, strict=True))


def rows_of(differences: pd.DataFrame, column: str) -> pd.DataFrame:
    """Pick the rows of a tidy table that a headline column is about."""
    scope, name, metric = HEADLINE[column]
    keys = (differences["scope"] == scope) & (differences["name"] == name)
    return differences[keys & (differences["metric"] == metric)]


def _title(column: str) -> str:
    return _TITLES.get(column, column.replace("_", " ").capitalize())


def _baseline(differences: pd.DataFrame) -> str:
    return method_label(str(differences["baseline"].iloc[0]))


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"


def _seeds(table: pd.DataFrame, kind: str = "") -> str:
    return f"{_range(table['seeds'])} {kind}seed{'s' * bool(table['seeds'].max() > 1)}"


def leaders(levels: pd.DataFrame) -> str:
    """Name the best method of ``summarise`` overall, in head and tail, with intervals."""
    best = []
    for column in ("balanced_accuracy", "head", "tail"):
        if column in levels and levels[column].notna().any():
            row = levels.loc[levels[column].idxmax()]
            known = with_interval(
                row[column], row[f"{column}_low"], row[f"{column}_high"], digits=1
            )
            recall = "" if column == "balanced_accuracy" else " recall"
            best.append(f"{_title(column).lower()}{recall} {method_label(row['method'])} {known} %")
    return f"Highest {', '.join(best)}"


def differing_pairs(pairs: pd.DataFrame) -> str:
    """Count pairs of ``compare_all`` whose balanced accuracy differs by their corrected p-value."""
    rows = rows_of(pairs, "balanced_accuracy")  # two for each pair
    sure = f"{(rows['p_holm'] < 0.05).sum() // 2} of {len(rows) // 2} pairs"
    return f"corrected for their number, {sure} differ in balanced accuracy"


def findings(differences: pd.DataFrame, *, planned_seeds: int = 0) -> list[str]:
    """State what `compare` or `compare_teachers` found overall and in the tail, verdict by verdict.

    One text for each baseline, or pair of methods and student, number and verdict; in it methods or
    teachers with their differences, the best first. ``planned_seeds``: of a plan, 0 if none is.
    """
    lines, planned = [], f"of {planned_seeds} planned " * (planned_seeds > 0)
    named = "teacher" if "teacher" in differences else "method"
    keys = ["method", "baseline", "student"] if named == "teacher" else ["baseline"]
    for _, part in differences.groupby(keys, sort=False):
        first, pair, student = part.iloc[0], f"Against {_baseline(part)}", ""
        if named == "teacher":
            pair = f"{method_label(first['method'])} against {_baseline(part)}"
            student = f", student {first['student']}"
        for column, number in FOUND.items():
            rows, said = rows_of(part, column), dict[str, list[str]]()
            for row in rows.sort_values("difference", ascending=False).to_dict("records"):
                verdict, _, why = row["verdict"].partition(": ")
                known = with_interval(row["difference"], row["low"], row["high"], signed=True)
                text = f"{method_label(row[named])} {known}" + f" ({why})" * ("would" in why)
                verdict = verdict if "would" in why or "under" in verdict else row["verdict"]
                said.setdefault(verdict.replace(": ", ", "), []).append(text)
            about = f"{_seeds(rows, planned)}, {_range(rows['n'])} test images{student}"
            for verdict, own in said.items():
                lines.append(f"{pair}, {number.lower()}: {verdict}: {', '.join(own)} ({about})")
    return lines
