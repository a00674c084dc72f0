"""`fopro compare --html`: methods side by side as one page, with what it rests on."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fopro_lab.config import TrainConfig
from fopro_lab.evaluation import (
    Run,
    compare,
    dropped_lines,
    latex_tables,
    markdown_tables,
    pairings,
    score_runs,
    summarise,
)
from fopro_lab.files import atomic_path
from fopro_lab.lab import figures
from fopro_lab.lab.headlines import as_headline
from fopro_lab.lab.pages import stylesheet, templates
from fopro_lab.lab.report_tables import write_both
from fopro_lab.lab.thumbnails import thumbnail

WIDE = 1300  # pixels of an inlined figure: sharp on a fine screen
_WHOLE = "all classes"


@dataclass(frozen=True)
class Comparison:
    """Tables of several methods on the same test pictures, all by the names of `evaluation`.

    Attributes:
        runs: Finished and unfinished ones.
        differences: Of ``compare``.
        levels: Of ``score_runs``.
        headline: Of ``summarise``.
        pairs: Of ``pairings``.
    """

    runs: Sequence[Run]
    differences: pd.DataFrame
    levels: pd.DataFrame
    headline: pd.DataFrame
    pairs: pd.DataFrame

    @classmethod
    def of(cls, runs: Sequence[Run], baseline: str) -> "Comparison":
        """Compute all tables.

        Args:
            runs: Of ``load_runs``, with the unfinished ones.
            baseline: Method that is subtracted.

        Raises:
            InputError: As ``compare``.
        """
        done = [run for run in runs if run.complete]
        differences = compare(done, baseline)
        return cls(runs, differences, score_runs(done), summarise(done), pairings(runs, baseline))

    @property
    def baseline(self) -> str:
        """The method that is subtracted."""
        return str(self.differences["baseline"].iloc[0])

    @property
    def dropped(self) -> list[str]:
        """A line for each run that is left out, wholly or in part."""
        return dropped_lines(self.pairs)

    def latex(self) -> str:
        """The tables for a paper, as LaTeX."""
        return latex_tables(self.headline, self.differences)

    def markdown(self) -> str:
        """The tables for a paper, as Markdown."""
        return markdown_tables(self.headline, self.differences)


def write_comparison_page(comparison: Comparison, *, out: Path, command: str) -> Path:
    """Write ``index.html``, its tables as CSV and parquet, figures, ``table.tex`` and ``table.md``.

    Args:
        comparison: What to show.
        out: Folder; made if missing.
        command: What wrote it, told on the page.

    Returns:
        Path of the page.

    Raises:
        WorkError: If the disk is full or may not be written.
    """
    runs = runs_table(comparison)
    tables = {"differences": comparison.differences, "levels": comparison.levels}
    tables |= {"headline": comparison.headline, "runs": runs}
    files = [path.name for name, table in tables.items() for path in write_both(table, out / name)]
    for name, text in (("table.tex", comparison.latex()), ("table.md", comparison.markdown())):
        with atomic_path(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        files.append(name)
    first = comparison.differences.iloc[0]
    page = (
        templates()
        .get_template("compare.html.j2")
        .render(
            title=_title(comparison),
            baseline=figures.METHOD_LABELS.get(comparison.baseline, comparison.baseline),
            protocol=first["protocol"],
            n=int(comparison.headline["n"].max()),
            varies=" / ".join(dict.fromkeys(comparison.differences["varies"])),
            dropped=comparison.dropped,
            headline=as_headline(_in_points(comparison.headline), form="{:.1f}"),
            differences=_difference_tables(comparison.differences),
            pictures=_draw(comparison, out=out),
            runs=as_headline(runs.drop(columns="protocol").replace("", "-")),
            facts=_facts(comparison.runs, command=command),
            files=files,
            css=stylesheet(),
        )
    )
    with atomic_path(out / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out / "index.html"


def runs_table(comparison: Comparison) -> pd.DataFrame:
    """List every run: whether it was paired and why not, what it was trained with, and when.

    Args:
        comparison: The comparison.

    Returns:
        The columns of ``pairings`` and ``best_epoch``, ``commit``, ``device``, ``finished``.
    """
    table = comparison.pairs.copy()
    table["paired"] = table["paired"].map({True: "yes", False: "no"})
    for name in ("best_epoch", "commit", "device", "finished"):
        table[name] = [str(run.manifest.get(name, "")) for run in comparison.runs]
    return table


def _title(comparison: Comparison) -> str:
    found = dict.fromkeys([*comparison.differences["method"], comparison.baseline])
    *names, last, against = (figures.METHOD_LABELS.get(name, name) for name in found)
    told = f"{', '.join(names)} and {last}" if names else last
    return f"{told[0].upper()}{told[1:]} against {against}"


def _in_points(headline: pd.DataFrame) -> pd.DataFrame:
    shares = [name for name in headline if pd.api.types.is_float_dtype(headline[name])]
    return headline.assign(**{str(name): 100 * headline[name] for name in shares})


def _difference_tables(differences: pd.DataFrame) -> list[dict[str, Any]]:
    """Lay the differences out twice, whole and groups, then classes: a column a method."""
    whole = differences[differences["scope"] == "overall"]
    groups = differences[(differences["scope"] == "group") & (differences["metric"] == "recall")]
    upper = pd.concat([groups, whole])
    upper = upper.assign(name=upper["name"].where(upper["scope"] == "group", upper["metric"]))
    classes = differences[(differences["scope"] == "class") & (differences["metric"] == "recall")]
    return [
        {"title": title, **as_headline(_side_by_side(part, first), form="{:+.1f}")}
        for title, first, part in (
            ("Whole and groups", "measure", upper),
            ("Classes", "class", classes),
        )
        if len(part)
    ]


def _side_by_side(part: pd.DataFrame, first: str) -> pd.DataFrame:
    rows = []
    for name, own in part.groupby("name", sort=False):
        row = {first: str(name).replace("_", " ")}
        if (own["group"] != "").any():
            row["group"] = own["group"].iloc[0]
        row["n"] = own["n"].iloc[0]
        for each in own.to_dict("records"):
            method = figures.METHOD_LABELS.get(each["method"], each["method"])
            row |= {method: 100 * each["difference"]}
            row |= {f"{method}_{end}": 100 * each[end] for end in ("low", "high")}
        rows.append(row)
    return pd.DataFrame(rows)


def _draw(comparison: Comparison, *, out: Path) -> list[dict[str, str]]:
    levels, differences = comparison.levels, comparison.differences
    drawn = {
        "group_recall": figures.plot_group_recall(levels),
        "differences": figures.plot_comparison(differences),
        "class_recall": figures.plot_class_recall(levels),
        "class_differences": figures.plot_comparison(differences, scopes=("class",)),
    }
    pictures = []
    for stem, ax in drawn.items():
        path = figures.save_figure(ax, out / f"{stem}.png")
        caption = stem.replace("_", " ")
        image = thumbnail(path, width=WIDE)
        pictures.append({"file": path.name, "caption": caption, "image": image})
    return pictures


def _facts(runs: Sequence[Run], *, command: str) -> Mapping[str, str]:
    """How the page and its runs were made; knobs that all runs share are told once."""
    commits = dict.fromkeys(str(run.manifest.get("commit", "unknown")) for run in runs)
    finished = [str(run.manifest.get("finished", "")) for run in runs]
    days = sorted(day[:10] for day in finished if day) or ["unknown"]
    common = dict(
        item
        for item in _changed(runs[0].config).items()
        if all(_changed(run.config).get(item[0]) == item[1] for run in runs)
    )
    own = [
        _settings({k: v for k, v in _changed(run.config).items() if k not in common})
        for run in runs
    ]  # fmt: skip
    told = _settings(common)
    return {
        "This page": command,
        "Runs": f"fopro train {told} ...".replace("  ", " "),
        "Each with": "; ".join(dict.fromkeys(words or "defaults" for words in own)),
        "Trained at commit": ", ".join(commits),
        "Trained on": f"{days[0]} to {days[-1]}" if days[0] != days[-1] else days[0],
        "Intervals": "95 %, 1000 resamples of whole lesions or patients, and of seeds and folds "
        "where there are two or more",
    }


def _settings(knobs: Mapping[str, Any]) -> str:
    """Knobs as a shell takes them."""
    return " ".join(f"--set {shlex.quote(f'{name}={value}')}" for name, value in knobs.items())


def _changed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs that are not as they are by default."""
    known = TrainConfig.model_fields
    always = ("method", "seed")
    return {
        name: value
        for name, value in config.items()
        if name in always or name not in known or value != _plain(known[name].get_default())
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
