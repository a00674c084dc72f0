"""`fopro data ...`: list, fetch, check, pack."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fopro_lab.cli.options import KINDS, AsJson, FromFile, Out, Settings, read_config, show
from fopro_lab.errors import WorkError

data_app = typer.Typer(help="Data sets: what is there, whether it is sound, decode once.", **KINDS)


@data_app.command("list")
def data_list(as_json: AsJson = False) -> None:
    """List the data sets that can be opened, what can be fetched, and what was."""
    from fopro_lab.fetching import fetched_place, find_source, source_names

    sources = [find_source(name) for name in source_names()]
    places = {source.name: fetched_place(source.name) for source in sources}
    if as_json:
        facts = [
            {"name": s.name, "place": places[s.name], "licence": s.licence, "citation": s.citation}
            for s in sources
        ]
        print(json.dumps(facts, indent=2, default=str))
        return
    from fopro_lab.data.phantom import PICTURES
    from fopro_lab.progress import in_bytes

    print(f"phantom  procedural, deterministic, 8 classes, 64 px, {PICTURES} pictures by default")
    print("PATH     a folder a class, or pictures with a CSV (image, class, group, source, split)")
    print("\nFrom their publishers, with `fopro data fetch NAME`; isic2019-lt opens isic2019:")
    for source in sources:
        size = in_bytes(source.size) if source.size else "size unknown"
        state = places[source.name] or f"not fetched, {size}"
        print(f"{source.name:<20} {state}; {source.licence}")
    print("medmnist:NAME-64, -128 and -224 are the same pictures, larger")


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A source, see `fopro data list`.")],
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", help="Folder of all sources, else $FOPRO_DATA.")
    ] = "",
    mirror: Annotated[
        str, typer.Option(metavar="URL", help="Address with FOLDER/FILE, else $FOPRO_MIRROR.")
    ] = "",
) -> None:
    """Bring a data set, splits or weights from their publisher; goes on where it was stopped."""
    from fopro_lab.fetching import fetch

    print(fetch(name, out=out or None, mirror=mirror))


@data_app.command("check")
def data_check(
    settings: Settings = [], file: FromFile = "", as_json: AsJson = False, out: Out = ""
) -> None:
    """Examine pictures and split: unreadable, doubled, leaking, entangled, too few.

    A verdict a line: ok; note, know it; warn, results hold but are weaker than they look; fail,
    pictures cannot be used or results on this split would be wrong. Exit code 0 also with
    warnings, since no real data are without; 1 if a verdict is "fail"; 2 if the input was wrong.
    With --out all tables, as CSV, and the figures are written to a folder.
    """
    from fopro_lab.auditing import check_data
    from fopro_lab.config import DataConfig

    found = check_data(read_config(DataConfig, settings, file))
    if out:
        from fopro_lab.lab.doctor_pages import write_checkup

        write_checkup(found, out=Path(out))
    if as_json:
        print(json.dumps(found.as_dict(), indent=2, allow_nan=False))
    else:
        show(found.facts, as_json=False)
        print("", *found.count_lines(), "", *found.lines(), *found.unreadable_lines(), sep="\n")
    failed = [finding.what for finding in found.findings if finding.level == "fail"]
    if failed:
        raise WorkError(f"not fit for use as it is: {', '.join(dict.fromkeys(failed))}")


@data_app.command("pack")
def data_pack(
    settings: Settings = [],
    file: FromFile = "",
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the whole file with its checksums.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Decode every picture once into the cache; goes on where it was stopped."""
    from fopro_lab.config import DataConfig
    from fopro_lab.data.preparing import pack_from

    config = read_config(DataConfig, settings, file)
    packed = pack_from(config, verify=verify)
    facts = {
        "dataset": packed.dataset.name,
        "file": packed.path,
        "bytes": packed.images.nbytes,
        "decoder": config.decoder,
        "interpolation": config.interpolation,
        "left out": packed.left_out if as_json else len(packed.left_out),
    } | ({"checksums": "hold"} if verify else {})
    if as_json:
        show({"pictures": len(packed), "size": packed.size} | facts, as_json=True)
        return
    print(f"packed {len(packed)} pictures of {packed.size} px")
    show(facts, as_json=False)
    for reason in packed.left_out.values():
        print(f"  {reason}")
