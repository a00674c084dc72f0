"""A teacher's card, or several side by side, as one HTML page that needs no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fopro_lab.files import atomic_path
from fopro_lab.lab.headlines import as_headline
from fopro_lab.lab.pages import stylesheet, templates
from fopro_lab.lab.thumbnails import thumbnail
from fopro_lab.probing import TeacherCard

WIDE = 1300  # pixels of an inlined figure: sharp on a fine screen

# Title, what to see in it, columns, and the names of its figures.
SECTIONS: Sequence[tuple[str, str, int, tuple[str, ...]]] = (
    (
        "Ring response",
        "One frequency ring of the pictures is scaled: how far do features move? Raw, low rings "
        "win because they hold most of the energy; per energy changed, the teacher's own "
        "preference is left. No label is needed.",
        2,
        ("ring_response.png", "ring_response_per_energy.png", "ring_response_of_colours.png"),
    ),
    (
        "Which class lives in which band",
        "Recall of test pictures, untouched, and how it changes as one ring is scaled. Of so many "
        "cells one in twenty gets a frame by chance; a star has survived the correction for all.",
        2,
        ("probe_recall.png", "class_bands*.png"),
    ),
    (
        "How much of the spectrum is needed",
        "Pictures keep what is below, or above, a cut-off; or only their phases or amplitudes.",
        2,
        ("ladder*.png", "phases*.png"),
    ),
    (
        "Fourier basis heat map",
        "A single wave of fixed size is added to each picture, with both signs: bright frequencies "
        "upset the teacher, or the reader of the classes. Dashed: 0.25 and 0.5 cycles per pixel.",
        2,
        ("heat_map*.png",),
    ),
    (
        "Spectra of classes and sources",
        "Each picture's contrast ring by ring, averaged over a class or source, and its difference "
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
        "How well the energy of one ring tells where a picture comes from, beside its class. A "
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
        {"title": title, "text": _told(title, text, card), "columns": columns, "pictures": pictures}
        for title, text, columns, stems in SECTIONS
        if (pictures := _pictures(out, stems)) or title.startswith("Fingerprint")
    ]
    counts = data["pictures"]
    facts = {
        "Teacher": ", ".join(
            f"{k} {v}" for k, v in teacher.items() if not isinstance(v, (dict, list))
        ),
        "Pictures": f"{data['dataset']}, {data['image_size']} px; {counts['train']:,} train, "
        f"{counts['val']:,} validation, {counts['test']:,} test",
        "Protocol": data["protocol"],
        "Ring response": f"{probing['pictures']} validation pictures, gains {probing['gains']}",
        "Changed test pictures": f"{probing['per_class']} of each class at most"
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
            f"({score['low']:.3f} to {score['high']:.3f}) on untouched test pictures."
        )
    for reader, own in card.class_bands.groupby("reader", sort=False):
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


def _pictures(folder: Path, stems: Sequence[str]) -> list[dict[str, str]]:
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
            "pictures": _pictures(out, ("preferences_gain*.png", "distances.png")),
        },
        {
            "title": "Which class lives in which band",
            "text": "Read by a linear probe on each teacher, all with one scale of colours.",
            "columns": 1,
            "pictures": _pictures(out, ("class_bands*.png",)),
        },
    ]
    for title, text, _, stems in SECTIONS:
        if title.startswith(("Ring", "How", "Fourier")):
            columns = [
                [
                    dict(item, caption=f"{name}: {item['caption']}")
                    for item in _pictures(folder, stems)
                ]
                for name, folder in folders.items()
            ]
            rows = [item for level in zip(*columns, strict=False) for item in level]
            if rows:
                # A figure lies in another folder, so it is shown and not linked to.
                linked = [dict(item, file="") for item in rows]
                sections.append(
                    {"title": title, "text": text, "columns": len(folders), "pictures": linked}
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
