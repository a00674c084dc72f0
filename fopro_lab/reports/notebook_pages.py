"""`fopro probe --compare`: several teachers' cards on one page."""

from pathlib import Path
from fopro_lab.checks import Findings
from fopro_lab import plots as figures
from fopro_lab.probing import TeacherCard, heat_plane
from collections.abc import Mapping, Sequence
from typing import Any
import pandas as pd
from fopro_lab.io import atomic_path
from fopro_lab.reports.pages import as_headline
from fopro_lab.reports.pages import stylesheet, templates
from fopro_lab.reports.pages import thumbnail
from fopro_lab.probing import TeacherCard
import shlex
from dataclasses import dataclass
from fopro_lab.config import TrainConfig
from fopro_lab.evaluation import Run, compare, dropped_lines, latex_tables, markdown_tables, pairings, score_runs, summarise
from fopro_lab.reports.pages import write_both
from fopro_lab.config import ProbeConfig, TrainConfig
from fopro_lab.data import prepare
from fopro_lab.errors import InputError
from fopro_lab.evaluation import groups_from
from fopro_lab.models import load_from
from fopro_lab.probing import Classifier, TeacherCard, teacher_card, wrap_classifier
from collections.abc import Sequence
from fopro_lab.probing import Comparison, TeacherCard, compare_cards



def write_checkup(found: Findings, *, out: Path) -> Path:
    """Write ``findings.json``, a CSV a table, and the figures that have something to show.

    Args:
        found: By the doctor.
        out: Folder; made if missing.

    Returns:
        The folder.

    Raises:
        WorkError: If the disk is full or may not be written.
    """
    found.write(out)
    tables = found.tables
    figures.save_figure(figures.plot_class_counts(tables["counts"]), out / "checkup.png")
    ties = tables["leakage"]
    if ties[ties["other"] == "train"]["any"].any():
        figures.save_figure(figures.plot_leakage(ties), out / "leaks.png")
    if len(tables["sources"].columns) > 1:
        figures.save_figure(figures.plot_class_sources(tables["sources"]), out / "sources.png")
    return out


HEAT = {"drift": "Drift of features, 1 - cos", "error": "Error rate"}


def draw_card(card: TeacherCard, *, out: Path) -> list[Path]:
    """Draw whatever a card has something to show for.

    Args:
        card: The card.
        out: Folder for the PNG files.

    Returns:
        Their paths.
    """
    drawn = draw_responses(card, out=out)
    drawn += draw_bands(card, out=out)
    drawn += draw_needs(card, out=out)
    drawn += draw_heat_maps(card, out=out)
    for scope in ("class", "source"):
        if scope in set(card.spectra["scope"]):
            for value, stem in (("difference", "difference"), ("log_amplitude", "spectra")):
                ax = figures.plot_spectra(card.spectra, scope=scope, value=value)  # type: ignore[arg-type]
                drawn.append(figures.save_figure(ax, out / f"{scope}_{stem}.png"))
    if len(card.fingerprint):
        ax = figures.plot_fingerprint(card.fingerprint)
        drawn.append(figures.save_figure(ax, out / "source_fingerprint.png"))
    return drawn


def draw_responses(card: TeacherCard, *, out: Path) -> list[Path]:
    """Draw the ring response, raw, per energy, and of each colour if it was measured."""
    response = card.ring_response
    drawn = [
        figures.save_figure(figures.plot_ring_response(response), out / "ring_response.png"),
        figures.save_figure(
            figures.plot_ring_response(response, normalised=True),
            out / "ring_response_per_energy.png",
        ),
    ]
    if "red" in set(response["channel"]):
        gain = float(response.loc[response["gain"] != 1, "gain"].iloc[0])
        ax = figures.plot_channel_response(response, gain=gain)
        drawn.append(figures.save_figure(ax, out / "ring_response_of_colours.png"))
    return drawn


def draw_bands(card: TeacherCard, *, out: Path) -> list[Path]:
    """Draw the recall of the untouched images and the class x band matrices."""
    drawn = [figures.save_figure(figures.plot_class_recall(card.scores), out / "probe_recall.png")]
    for reader, own in card.class_bands.groupby("classifier", sort=False):
        for gain in own["gain"].unique():
            ax = figures.plot_class_bands(own, gain=gain)
            path = out / f"class_bands_{reader}_gain_{gain:g}.png"
            drawn.append(figures.save_figure(ax, path))
    return drawn


def draw_needs(card: TeacherCard, *, out: Path) -> list[Path]:
    """Draw the ladder of cut-offs, and phases against amplitudes, of each reader."""
    drawn = []
    for reader, own in card.ladder.groupby("classifier", sort=False):
        figure = figures.plot_ladder(own)
        drawn.append(figures.save_figure(figure, out / f"ladder_{reader}.png"))
    for reader, own in card.phases.groupby("classifier", sort=False):
        ax = figures.plot_phases(own)
        drawn.append(figures.save_figure(ax, out / f"phases_{reader}.png"))
    return drawn


def draw_heat_maps(card: TeacherCard, *, out: Path) -> list[Path]:
    """Draw the Fourier basis heat map: drift of the teacher, error rate of each reader."""
    drawn: list[Path] = []
    if card.heat_map.empty:
        return drawn
    for reader, own in card.heat_map.groupby("classifier", sort=False):
        for value, label in HEAT.items():
            if own[value].isna().all():
                continue
            first = own.iloc[0]
            notes = [f"n={first['n']} images", f"waves of norm {first['size']:g}, both signs"]
            if value == "error":
                notes.append(f"untouched: {100 * first['clean_error']:.0f} % wrong")
            who = f" by the {reader}" if value == "error" else ""
            ax = figures.plot_heat_map(
                heat_plane(own, value=value),
                title=f"Fourier basis heat map, {label.partition(',')[0].lower()}{who}",
                label=label,
                notes=tuple(notes),
            )
            stem = "drift" if value == "drift" else f"error_{reader}"
            drawn.append(figures.save_figure(ax, out / f"heat_map_{stem}.png"))
    return drawn


WIDE = 1300  # pixels of an inlined figure: sharp on a fine screen

# Title, what to see in it, columns, and the names of its figures.
SECTIONS: Sequence[tuple[str, str, int, tuple[str, ...]]] = (
    (
        "Ring response",
        "One frequency ring of the images is scaled: how far do features move? Raw, low rings "
        "win because they hold most of the energy; per energy changed, the teacher's own "
        "preference is left. No label is needed.",
        2,
        ("ring_response.png", "ring_response_per_energy.png", "ring_response_of_colours.png"),
    ),
    (
        "Which class lives in which band",
        "Recall of test images, untouched, and how it changes as one ring is scaled. Of so many "
        "cells one in twenty gets a frame by chance; a star has survived the correction for all.",
        2,
        ("probe_recall.png", "class_bands*.png"),
    ),
    (
        "How much of the spectrum is needed",
        "Images keep what is below, or above, a cut-off; or only their phases or amplitudes.",
        2,
        ("ladder*.png", "phases*.png"),
    ),
    (
        "Fourier basis heat map",
        "A single wave of fixed size is added to each image, with both signs: bright frequencies "
        "upset the teacher, or the reader of the classes. Dashed: 0.25 and 0.5 cycles per pixel.",
        2,
        ("heat_map*.png",),
    ),
    (
        "Spectra of classes and sources",
        "Each image's contrast ring by ring, averaged over a class or source, and its difference "
        "from the mean over classes or sources, all of which count the same.",
        2,
        (
            "class_difference.png",
            "class_spectra.png",
            "source_difference.png",
            "source_spectra.png",
        ),
    ),
    (
        "Fingerprint of the source",
        "How well the energy of one ring tells where an image comes from, beside its class. A "
        "ring that tells the class over all sources, and no longer within each, tells the scanner.",
        1,
        ("source_fingerprint.png",),
    ),
)


def card_page(card: TeacherCard, *, out: Path) -> Path:
    """Write ``index.html`` of a card, from its figures in the same folder.

    Args:
        card: The card.
        out: Folder with its PNG files.

    Returns:
        Path of the page.
    """
    teacher, data, probing = (card.summary[key] for key in ("teacher", "data", "probing"))
    sections = [
        {"title": title, "text": _told(title, text, card), "columns": columns, "images": images}
        for title, text, columns, stems in SECTIONS
        if (images := _images(out, stems)) or title.startswith("Fingerprint")
    ]
    counts = data["images"]
    facts = {
        "Teacher": ", ".join(
            f"{k} {v}" for k, v in teacher.items() if not isinstance(v, (dict, list))
        ),
        "Images": f"{data['dataset']}, {data['image_size']} px; {counts['train']:,} train, "
        f"{counts['val']:,} validation, {counts['test']:,} test",
        "Protocol": data["protocol"],
        "Ring response": f"{probing['images']} validation images, gains {probing['gains']}",
        "Changed test images": f"{probing['per_class']} of each class at most"
        if probing["per_class"]
        else "all",
        "Arithmetic": probing["precision"],
        "Intervals": f"95 %, {probing['resamples']} resamples of lesions, seed {probing['seed']}",
        "Data": data["fingerprint"][:16],
    }
    return _write(
        out,
        title=f"{teacher.get('name', 'a teacher')} on {data['dataset']}",
        eyebrow="fopro_lab teacher card",
        lead="To which frequencies does this frozen network listen, and which classes depend on "
        "them?",
        table=None,
        findings=findings(card),
        sections=sections,
        facts=facts,
        files=[*sorted(path.name for path in out.glob("*.parquet")), "card.json"],
    )


def findings(card: TeacherCard) -> list[str]:
    """Say in a few lines what a card found, computed from its tables.

    Args:
        card: The card.

    Returns:
        Sentences.
    """
    told = []
    for key, unit in (("drift", "as it is"), ("drift_per_energy", "for the energy changed")):
        found = card.summary[f"largest_{key}"]
        if found:
            told.append(
                f"Features move most, {unit}, at {found['low']:.3g} to {found['high']:.3g} cycles "
                f"per pixel (gain {found['gain']:g})."
            )
    score = card.summary["probe"]["test_balanced_accuracy"]
    if "low" in score:
        told.append(
            f"A linear probe reaches a balanced accuracy of {score['value']:.3f} "
            f"({score['low']:.3f} to {score['high']:.3f}) on untouched test images."
        )
    for reader, own in card.class_bands.groupby("classifier", sort=False):
        classes = own[own["scope"] == "class"]
        clear = (classes["change_low"] > 0) | (classes["change_high"] < 0)
        cells = int(classes["cells"].max())
        told.append(
            f"Of {cells} class x band cells of the {reader}, {int(clear.sum())} leave zero out of "
            f"their 95 % interval (about {0.05 * cells:.0f} would by chance) and "
            f"{int(classes['survives'].sum())} survive Holm's correction."
        )
    return told + _fingerprint_findings(card.fingerprint)


def _fingerprint_findings(table: pd.DataFrame) -> list[str]:
    if table.empty or "source" not in set(table["target"]):
        return ["No two sources are known, so a scanner's signature cannot be told from a class."]
    asked = table.set_index(["target", "within", "ring"]).sort_index()
    source = asked.loc["source", "all"].query("ring >= 0")
    best = source["accuracy"].idxmax()
    row = source.loc[best]
    told = (
        f"The source shows most at {row['low']:.3g} to {row['high']:.3g} cycles per pixel: "
        f"balanced accuracy {row['accuracy']:.2f} "
        f"({row['accuracy_low']:.2f} to {row['accuracy_high']:.2f}), "
        f"chance {row['chance']:.2f}."
    )
    if ("class", "each source") in {key[:2] for key in asked.index}:
        over, within = (
            asked.loc[("class", part)].query("ring >= 0") for part in ("all", "each source")
        )
        above = [part["accuracy"] > part["permuted_high"] for part in (over, within)]
        lost = int((above[0] & ~above[1].reindex(above[0].index, fill_value=False)).sum())
        told += (
            f" Of {int(above[0].sum())} rings that tell the class over all sources, {lost} no "
            "longer do within them."
        )
    return [told]


def _told(title: str, text: str, card: TeacherCard) -> str:
    if title.startswith("Fingerprint") and not card.summary["data"]["sources"]:
        return f"{text} No source is known here, so only the class is shown."
    return text


def _images(folder: Path, stems: Sequence[str]) -> list[dict[str, str]]:
    files = [path for stem in stems for path in sorted(folder.glob(stem))]
    return [
        {
            "file": path.name,
            "caption": path.stem.replace("_", " "),
            "image": thumbnail(path, width=WIDE),
        }
        for path in dict.fromkeys(files)
    ]


def _write(out: Path, **content: Any) -> Path:
    page = templates().get_template("card.html.j2").render(css=stylesheet(), **content)
    with atomic_path(out / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out / "index.html"


def comparison_page(
    table: pd.DataFrame,
    told: Sequence[str],
    folders: Mapping[str, Path],
    *,
    facts: Mapping[str, str],
    out: Path,
) -> Path:
    """Write ``index.html`` of several teachers side by side.

    Args:
        table: A row a teacher.
        told: Sentences.
        folders: Of each teacher's card, whose figures are laid into columns.
        facts: How it was made.
        out: Folder with the figures of the comparison.

    Returns:
        Path of the page.
    """
    sections: list[dict[str, Any]] = [
        {
            "title": "Preferences laid over one another",
            "text": "Drift per energy changed, relative to each teacher's own mean ring: what is "
            "left is the shape of its preference.",
            "columns": 2,
            "images": _images(out, ("preferences_gain*.png", "distances.png")),
        },
        {
            "title": "Which class lives in which band",
            "text": "Classes named by a linear probe on each teacher, all with one scale of colours.",
            "columns": 1,
            "images": _images(out, ("class_bands*.png",)),
        },
    ]
    for title, text, _, stems in SECTIONS:
        if title.startswith(("Ring", "How", "Fourier")):
            columns = [
                [
                    dict(item, caption=f"{name}: {item['caption']}")
                    for item in _images(folder, stems)
                ]
                for name, folder in folders.items()
            ]
            rows = [item for level in zip(*columns, strict=False) for item in level]
            if rows:
                # A figure lies in another folder, so it is shown and not linked to.
                linked = [dict(item, file="") for item in rows]
                sections.append(
                    {"title": title, "text": text, "columns": len(folders), "images": linked}
                )
    names = list(folders)
    return _write(
        out,
        title=f"{len(names)} teachers side by side",
        eyebrow="fopro_lab teacher cards",
        lead=", ".join(names),
        table=as_headline(table),
        findings=told,
        sections=sections,
        facts=facts,
        files=sorted(path.name for path in [*out.glob("*.csv"), *out.glob("*.parquet")]),
    )


COMPARE_PAGES_WIDE = 1300  # pixels of an inlined figure: sharp on a fine screen
_WHOLE = "all classes"


@dataclass(frozen=True)
class Comparison_compare_pages:
    """Tables of several methods on the same test images, all by the names of `evaluation`.

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
    def of(cls, runs: Sequence[Run], baseline: str) -> "Comparison_compare_pages":
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


def write_comparison_page(comparison: Comparison_compare_pages, *, out: Path, command: str) -> Path:
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
            images=_draw(comparison, out=out),
            runs=as_headline(runs.drop(columns="protocol").replace("", "-")),
            facts=_facts(comparison.runs, command=command),
            files=files,
            css=stylesheet(),
        )
    )
    with atomic_path(out / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out / "index.html"


def runs_table(comparison: Comparison_compare_pages) -> pd.DataFrame:
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


def _title(comparison: Comparison_compare_pages) -> str:
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


def _draw(comparison: Comparison_compare_pages, *, out: Path) -> list[dict[str, str]]:
    levels, differences = comparison.levels, comparison.differences
    drawn = {
        "group_recall": figures.plot_group_recall(levels),
        "differences": figures.plot_comparison(differences),
        "class_recall": figures.plot_class_recall(levels),
        "class_differences": figures.plot_comparison(differences, scopes=("class",)),
    }
    images = []
    for stem, ax in drawn.items():
        path = figures.save_figure(ax, out / f"{stem}.png")
        caption = stem.replace("_", " ")
        image = thumbnail(path, width=COMPARE_PAGES_WIDE)
        images.append({"file": path.name, "caption": caption, "image": image})
    return images


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


def ask_teacher(config: ProbeConfig, *, out: Path | None = None) -> TeacherCard:
    """Open images and teacher as a config says, and probe.

    Args:
        config: Images, teacher, and how each instrument is set.
        out: Folder in which a heat map keeps what is measured so far; None keeps nothing.

    Returns:
        The card.

    Raises:
        InputError: If images, teacher, student or knobs are wrong.
    """
    import torch  # late: the command line waits for it only here

    cuda = torch.cuda.is_available() and config.device != "cpu"
    if config.device == "cuda" and not cuda:
        raise InputError("device: expected a CUDA device, found none; use device=cpu")
    teacher = load_from(config).to("cuda" if cuda else "cpu")
    packed, split = prepare(config)
    student = None
    if config.student_run:
        student = read_student(
            config.student_run,
            split_fingerprint=split.fingerprint,
            image_size=packed.size,
            device="cuda" if cuda else "cpu",
        )
    return teacher_card(
        teacher,
        packed,
        split,
        config,
        groups=groups_from(config, packed.dataset.class_names, split.class_counts(packed.dataset)),
        student=student,
    )


def read_student(
    run_dir: Path | str, *, split_fingerprint: str, image_size: int, device: str = "cpu"
) -> Classifier:
    """Load the trained student of a run, if it can be asked on these images.

    Args:
        run_dir: Its run folder.
        split_fingerprint: Of the split that is probed; another one could put the student's
            training images into the test part.
        image_size: Side of the images that are probed, pixels.
        device: Where to compute.

    Returns:
        A classifier named "student".

    Raises:
        InputError: If there is no finished run, or its split or size is another one.
    """
    from fopro_lab.training.run_folder import TrainedRun
    from fopro_lab.training.train_prompt import shrink

    run = TrainedRun.read(run_dir)
    if run.state != "done":
        raise InputError(f"student_run: {run_dir}: expected a finished run, got one {run.state}")
    if run.manifest["split_fingerprint"] != split_fingerprint:
        raise InputError(
            f"student_run: {run_dir}: was trained on another split ({run.manifest['protocol']}); "
            "probe with the knobs of data and split that it was trained with"
        )
    trained = TrainConfig.from_mapping(run.config)
    if trained.image_size != image_size:
        raise InputError(
            f"student_run: {run_dir}: reads images of {trained.image_size} px, got {image_size}; "
            f"probe with image_size={trained.image_size}"
        )
    student = run.student().to(device)
    return wrap_classifier(
        lambda images: student.classify(shrink(images, trained.student_size)),
        name="student",
        device=device,
    )


def write_teacher_card(config: ProbeConfig, *, out: Path) -> Path:
    """Write a teacher's card: ``card.json``, parquet tables, figures and ``index.html``.

    Args:
        config: As in `ask_teacher`.
        out: Folder; a heat map that was interrupted there goes on.

    Returns:
        Path of the page.
    """
    card = ask_teacher(config, out=out)
    card.write(out)
    draw_card(card, out=out)
    return card_page(card, out=out)


def write_comparison(folders: Sequence[Path], *, out: Path, seed: int = 0) -> Path:
    """Compare cards and write tables, figures and a page.

    Args:
        folders: Of `fopro probe`, two or more, on the same images for distances.
        out: Folder for the comparison.
        seed: Of its resamples.

    Returns:
        Path of the page.

    Raises:
        InputError: If there are fewer than two folders, one is no card, or they asked otherwise.
    """
    if len(folders) < 2:
        raise InputError(f"--compare: expected two or more folders of cards, got {len(folders)}")
    cards = {folder: TeacherCard.read(folder) for folder in folders}
    names = name_cards(cards)
    found = compare_cards({names[folder]: card for folder, card in cards.items()}, seed=seed)
    draw_comparison(found, out=out)
    for name in ("teachers", "responses", "bands", "distances"):
        with atomic_path(out / f"{name}.csv") as temporary:
            getattr(found, name).to_csv(temporary, index=False)
    data = next(iter(cards.values())).summary
    return comparison_page(
        found.teachers,
        comparison_findings(found),
        {names[folder]: folder for folder in folders},
        facts={
            "Protocol": ", ".join(
                sorted({card.summary["data"]["protocol"] for card in cards.values()})
            ),
            "Rings": f"{len(data['probing']['edges']) - 1}, gains {data['probing']['gains']}",
            "Cards": ", ".join(map(str, folders)),
        },
        out=out,
    )


def name_cards(cards: dict[Path, TeacherCard]) -> dict[Path, str]:
    """Name each card by its teacher, and by its folder too where two are of one name.

    Example:
        >>> import pandas as pd
        >>> card = TeacherCard({"teacher": {"name": "a"}}, *[pd.DataFrame()] * 9)
        >>> list(name_cards({Path("x"): card, Path("y"): card}).values())
        ['a (x)', 'a (y)']
    """
    told = {folder: str(card.summary["teacher"].get("name", "")) for folder, card in cards.items()}
    repeated = {name for name in told.values() if list(told.values()).count(name) > 1}
    return {
        folder: f"{name} ({folder.name})" if name in repeated else name
        for folder, name in told.items()
    }


def draw_comparison(found: Comparison, *, out: Path) -> None:
    """Draw a comparison's figures into a folder."""
    for gain in sorted(found.responses["gain"].unique()):
        ax = figures.plot_teacher_responses(found.responses, gain=gain)
        figures.save_figure(ax, out / f"preferences_gain_{gain:g}.png")
    if len(found.distances):
        ax = figures.plot_preferences(found.distances)
        figures.save_figure(ax, out / "distances.png")
    for gain in sorted(found.bands["gain"].unique()):
        figure = figures.plot_teacher_bands(found.bands, gain=gain)
        figures.save_figure(figure, out / f"class_bands_gain_{gain:g}.png")


def comparison_findings(found: Comparison) -> list[str]:
    """Say in a line a pair whether two teachers differ more than measurements of one.

    Args:
        found: The comparison.

    Returns:
        Sentences.
    """
    if found.distances.empty:
        return [found.note]
    told = []
    for row in found.distances.itertuples():
        pair = "All pairs, on average" if row.teacher == "all" else f"{row.teacher}, {row.other}"
        verdict = (
            "differ more than measurements of one teacher do"
            if row.p_holm < 0.05
            else "do not differ clearly more than measurements of one teacher do"
        )
        told.append(
            f"{pair}: preferences {verdict}: distance {row.between:.2f} against {row.within:.2f} "
            f"(difference {row.difference_low:.2f} to {row.difference_high:.2f}, corrected p = "
            f"{row.p_holm:.3f})."
        )
    return told
