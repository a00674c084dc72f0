"""All figures of a teacher's card, under fixed names, so that cards can be laid side by side."""

from pathlib import Path

from fopro_lab.lab import figures
from fopro_lab.probing import TeacherCard, heat_plane

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
    """Draw the recall of the untouched pictures and the class x band matrices."""
    drawn = [figures.save_figure(figures.plot_class_recall(card.scores), out / "probe_recall.png")]
    for reader, own in card.class_bands.groupby("reader", sort=False):
        for gain in own["gain"].unique():
            ax = figures.plot_class_bands(own, gain=gain)
            path = out / f"class_bands_{reader}_gain_{gain:g}.png"
            drawn.append(figures.save_figure(ax, path))
    return drawn


def draw_needs(card: TeacherCard, *, out: Path) -> list[Path]:
    """Draw the ladder of cut-offs, and phases against amplitudes, of each reader."""
    drawn = []
    for reader, own in card.ladder.groupby("reader", sort=False):
        figure = figures.plot_ladder(own)
        drawn.append(figures.save_figure(figure, out / f"ladder_{reader}.png"))
    for reader, own in card.phases.groupby("reader", sort=False):
        ax = figures.plot_phases(own)
        drawn.append(figures.save_figure(ax, out / f"phases_{reader}.png"))
    return drawn


def draw_heat_maps(card: TeacherCard, *, out: Path) -> list[Path]:
    """Draw the Fourier basis heat map: drift of the teacher, error rate of each reader."""
    drawn: list[Path] = []
    if card.heat_map.empty:
        return drawn
    for reader, own in card.heat_map.groupby("reader", sort=False):
        for value, label in HEAT.items():
            if own[value].isna().all():
                continue
            first = own.iloc[0]
            notes = [f"n={first['n']} pictures", f"waves of norm {first['size']:g}, both signs"]
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
