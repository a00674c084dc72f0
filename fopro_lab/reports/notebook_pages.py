"""A teacher's card, its figures and its findings, until probing holds them itself."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fopro_lab import plots as figures
from fopro_lab.config import ProbeConfig, TrainConfig
from fopro_lab.data import prepare
from fopro_lab.errors import InputError
from fopro_lab.evaluation import groups_from
from fopro_lab.io import atomic_path
from fopro_lab.models import load_from
from fopro_lab.probing import (
    Classifier,
    Comparison,
    TeacherCard,
    compare_cards,
    heat_plane,
    read_cards,
    teacher_card,
    wrap_classifier,
)

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
    from fopro_lab.models.student import shrink

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


def write_comparison(folders: Sequence[Path], *, out: Path, seed: int = 0) -> list[str]:
    """Compare cards, write tables and figures to a folder, and return what was found.

    Raises:
        InputError: If there are fewer than two folders, one is no card, or they were made
            differently.
    """
    if len(folders) < 2:
        raise InputError(f"--compare: expected two or more folders of cards, got {len(folders)}")
    found = compare_cards(read_cards(folders), seed=seed)
    draw_comparison(found, out=out)
    for name in ("teachers", "responses", "bands", "distances"):
        with atomic_path(out / f"{name}.csv") as temporary:
            getattr(found, name).to_csv(temporary, index=False)
    return comparison_findings(found)


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
