"""`fopro probe`: one teacher's card as a folder of tables and figures."""

from pathlib import Path

from fopro_lab.config import ProbeConfig
from fopro_lab.data import prepare
from fopro_lab.evaluation import groups_from
from fopro_lab.fourier import ring_edges
from fopro_lab.lab import figures
from fopro_lab.models import load_from
from fopro_lab.probing import TeacherCard, teacher_card


def ask_teacher(config: ProbeConfig) -> TeacherCard:
    """Open pictures and teacher as a config says, and probe.

    Args:
        config: Pictures, teacher, rings and gains.

    Returns:
        The card.

    Raises:
        InputError: If pictures, teacher or knobs are wrong.
    """
    teacher = load_from(config)
    packed, split = prepare(config)
    return teacher_card(
        teacher,
        packed,
        split,
        ring_edges(config.rings),
        groups=groups_from(config, packed.dataset.class_names, split.class_counts(packed.dataset)),
        gains=config.gains,
        pictures=config.probe_pictures,
        resamples=config.resamples,
        seed=config.seed,
    )


def write_teacher_card(config: ProbeConfig, *, out: Path) -> Path:
    """Write a teacher's card: ``card.json``, parquet tables, figures.

    Args:
        config: As in `ask_teacher`.
        out: Folder.

    Returns:
        Path of ``card.json``.
    """
    card = ask_teacher(config)
    card.write(out)
    response = card.ring_response
    figures.save_figure(figures.plot_ring_response(response), out / "ring_response.png")
    figures.save_figure(
        figures.plot_ring_response(response, normalised=True),
        out / "ring_response_per_energy.png",
    )
    for gain in config.gains:
        bands = figures.plot_class_bands(card.class_bands, gain=gain)
        figures.save_figure(bands, out / f"class_bands_gain_{gain:g}.png")
    figures.save_figure(
        figures.plot_spectra(card.spectra, scope="class", value="difference"),
        out / "class_spectra.png",
    )
    return out / "card.json"
