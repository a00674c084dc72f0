"""Tables for a paper: levels and paired differences in per cent, as LaTeX and as Markdown."""

import re
from collections.abc import Sequence

import pandas as pd

from fopro_lab.errors import InputError
from fopro_lab.evaluation.compare import HEADLINE

COLUMNS = ("balanced_accuracy", "head", "medium", "tail")
METHOD_LABELS = {
    "ce": "cross-entropy",
    "bsm": "balanced softmax",
    "ekd": "EKD",
    "fopro": "FoPro-KD",
    "random": "random gains",
}
TITLES = {
    "balanced_accuracy": "Balanced accuracy",
    "head": "Head",
    "medium": "Medium",
    "tail": "Tail",
    "worst_class_recall": "Worst class",
    "macro_f1": "Macro F1",
    "mcc": "MCC",
    "auroc": "AUROC",
    "ece": "ECE",
}
_LOWER_IS_BETTER = {"ece"}
_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def escape_latex(text: str) -> str:
    r"""Write a text so that LaTeX prints it as it is.

    Example:
        >>> escape_latex("toy_64/50%")
        'toy\\_64/50\\%'
    """
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def clear_winner(levels: pd.DataFrame, differences: pd.DataFrame, column: str) -> str:
    """Name the best method of a column, if the paired intervals bear it out.

    A method beside the baseline must differ from it by an interval that leaves zero out; the
    baseline must do so from every other method. Methods beside the baseline are not paired with
    each other here, so a winner has beaten the baseline, and its rivals by its level alone.

    Args:
        levels: Of ``summarise``, a row a method.
        differences: Of ``compare``.
        column: A headline column.

    Returns:
        The method, or an empty text.
    """
    sign = -1 if column in _LOWER_IS_BETTER else 1
    known = levels.dropna(subset=[column])
    if known.empty:
        return ""
    best = str(known["method"].iloc[int((sign * known[column]).to_numpy().argmax())])
    rows = _rows_of(differences, column)
    baseline = str(differences["baseline"].iloc[0])
    if best == baseline:
        clear = ((sign * rows[["low", "high"]]) < 0).all(axis=None)
        return best if len(rows) and clear else ""
    own = rows[rows["method"] == best]
    return best if len(own) and ((sign * own[["low", "high"]]) > 0).all(axis=None) else ""


def latex_tables(
    levels: pd.DataFrame, differences: pd.DataFrame, *, columns: Sequence[str] = COLUMNS
) -> str:
    """Write levels and paired differences as two LaTeX tables, for the package booktabs.

    Args:
        levels: Of ``summarise``, a row a method, of one protocol.
        differences: Of ``compare`` for the same runs.
        columns: Headline columns, of ``HEADLINE``.

    Returns:
        The text, in per cent and percentage points with 95 % intervals. Bold is a `clear_winner`.

    Raises:
        InputError: If a column is unknown, or levels are of several protocols.
    """
    _check(levels, columns)
    ours = [[_bold(cell, r"\textbf{%s}") for cell in row]
            for row in _level_rows(levels, differences, columns)]  # fmt: skip
    theirs = [[_bold(cell, r"\textbf{%s}") for cell in row]
              for row in _difference_rows(differences, columns)]  # fmt: skip
    titles = [TITLES[column] for column in columns]
    told, against = _caption(levels, differences)
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            *_latex(["Method", *titles], ours, caption=told, label="tab:levels"),
            "",
            *_latex(["Method", *titles], theirs, caption=against, label="tab:differences"),
            "",
        ]
    )


def markdown_tables(
    levels: pd.DataFrame, differences: pd.DataFrame, *, columns: Sequence[str] = COLUMNS
) -> str:
    """Write the same two tables as Markdown.

    Args:
        levels: As in `latex_tables`.
        differences: As in `latex_tables`.
        columns: As in `latex_tables`.

    Returns:
        The text.

    Raises:
        InputError: As `latex_tables`.
    """
    _check(levels, columns)
    told, against = _caption(levels, differences)
    titles = ["Method", *(TITLES[column] for column in columns)]
    lines = []
    for caption, rows in (
        (told, _level_rows(levels, differences, columns)),
        (against, _difference_rows(differences, columns)),
    ):
        lines += [caption, "", f"| {' | '.join(titles)} |", f"|---{'|---:' * len(columns)}|"]
        for row in rows:
            cells = [_bold((text.replace("|", r"\|"), bold), "**%s**") for text, bold in row]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


_MINUS = re.compile(r"(?<!\w)-(?=\d)")  # of a number; LaTeX sets it as a hyphen otherwise

Cell = tuple[str, bool]  # text, and whether it is bold


def _level_rows(
    levels: pd.DataFrame, differences: pd.DataFrame, columns: Sequence[str]
) -> list[list[Cell]]:
    winners = {column: clear_winner(levels, differences, column) for column in columns}
    rows = []
    for row in levels.to_dict("records"):
        cells = [(METHOD_LABELS.get(row["method"], str(row["method"])), False)]
        for column in columns:
            ends = (row[column], row[f"{column}_low"], row[f"{column}_high"])
            cells.append((_told(*ends, form="{:.1f}"), winners[column] == row["method"]))
        rows.append(cells)
    return rows


def _difference_rows(differences: pd.DataFrame, columns: Sequence[str]) -> list[list[Cell]]:
    parts = {column: _rows_of(differences, column).set_index("method") for column in columns}
    baseline = differences["baseline"].iloc[0]
    rows = []
    for method in dict.fromkeys(differences["method"]):
        names = [METHOD_LABELS.get(name, name) for name in (method, baseline)]
        cells = [(" minus ".join(names), False)]
        for part in parts.values():
            if method not in part.index:
                cells.append(("n/a", False))
                continue
            row = part.loc[method]
            clear = bool(row["low"] > 0 or row["high"] < 0)
            told = _told(row["difference"], row["low"], row["high"], form="{:+.1f}")
            cells.append((told, clear))
        rows.append(cells)
    return rows


def _rows_of(differences: pd.DataFrame, column: str) -> pd.DataFrame:
    scope, name, metric = HEADLINE[column]
    keys = (differences["scope"] == scope) & (differences["name"] == name)
    return differences[keys & (differences["metric"] == metric)]


def _told(value: float, low: float, high: float, *, form: str) -> str:
    if pd.isna(value):
        return "n/a"
    texts = [form.format(100 * each) for each in (value, low, high) if pd.notna(each)]
    value_told, *ends = (t if t.strip("+-0.") else "0.0" for t in texts)
    return f"{value_told} [{', '.join(ends)}]" if len(ends) == 2 else f"{value_told} (no interval)"


def _caption(levels: pd.DataFrame, differences: pd.DataFrame) -> tuple[str, str]:
    baseline = str(differences["baseline"].iloc[0])
    protocol = ", ".join(map(str, differences["protocol"].unique()))
    n, seeds = int(levels["n"].max()), _range(levels["seeds"])
    folds = f", {_range(levels['folds'])} folds" if levels["folds"].max() > 1 else ""
    varies = ", ".join(dict.fromkeys(map(str, differences["varies"])))
    told = (
        f"In per cent, with 95 % intervals, on {n} test images, mean of {seeds} seeds{folds}. "
        f"Protocol {protocol}. Bold: the best of its column where the paired interval of its "
        f"difference to {baseline} leaves zero out."
    )
    against = (
        f"Paired differences to {baseline} in percentage points, {_range(differences['seeds'])} "
        f"common seeds, with 95 % intervals over {varies}. Bold: the interval leaves zero out; "
        f"intervals are not corrected for being several."
    )
    return told, against


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"


def _bold(cell: Cell, form: str) -> str:
    text, bold = cell
    if form.startswith("\\"):
        text = _MINUS.sub("$-$", escape_latex(text))
    return form % text if bold else text


def _latex(
    titles: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, label: str
) -> list[str]:
    return [
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{escape_latex(caption)}}}",
        f"  \\label{{{label}}}",
        f"  \\begin{{tabular}}{{l{'r' * (len(titles) - 1)}}}",
        r"    \toprule",
        f"    {' & '.join(map(escape_latex, titles))} \\\\",
        r"    \midrule",
        # A line that begins with [ would be read as an argument of the one before; none does.
        *(f"    {' & '.join(row)} \\\\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]


def _check(levels: pd.DataFrame, columns: Sequence[str]) -> None:
    for column in columns:
        if column not in HEADLINE:
            raise InputError(f"columns: expected some of {', '.join(HEADLINE)}, got '{column}'")
    protocols = list(levels["protocol"].unique())
    if len(protocols) != 1:
        raise InputError(f"levels: expected one protocol, got {', '.join(map(str, protocols))}")
