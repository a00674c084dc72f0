"""`fopro probe --compare`: several teachers' cards on one page."""

from collections.abc import Sequence
from pathlib import Path

from fopro_lab.errors import InputError
from fopro_lab.files import atomic_path
from fopro_lab.lab import figures
from fopro_lab.lab.card_pages import comparison_page
from fopro_lab.probing import Comparison, TeacherCard, compare_cards


def write_comparison(folders: Sequence[Path], *, out: Path, seed: int = 0) -> Path:
    """Compare cards and write tables, figures and a page.

    Args:
        folders: Of `fopro probe`, two or more, on the same pictures for distances.
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
        >>> card = TeacherCard({"teacher": {"name": "a"}}, *[pd.DataFrame()] * 4)
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
