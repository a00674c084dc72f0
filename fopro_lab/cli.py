"""The door: `fopro ...`. Each command reads its words, calls one room and says what it did.

Rooms are imported inside the commands: `fopro --help` waits for neither torch nor pandas.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.exceptions import TyperException

from fopro_lab.errors import InputError, WorkError

if TYPE_CHECKING:
    import pandas as pd

    from fopro_lab.config import Config

    ConfigType = TypeVar("ConfigType", bound=Config)

HELP = "An open laboratory for Fourier-prompted knowledge distillation on long-tailed pictures."
INTERRUPTED = 130  # what typer makes of Ctrl-C
KINDS: dict[str, Any] = {
    "no_args_is_help": True,
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}
app = typer.Typer(help=HELP, **KINDS)
data_app = typer.Typer(help="Data sets: what is there, whether it is sound, decode once.", **KINDS)
teachers_app = typer.Typer(help="Frozen teachers: list, check, pre-train the built-in.", **KINDS)
bench_app = typer.Typer(help="Speed as ratios, measured side by side in one run.", **KINDS)
app.add_typer(data_app, name="data")
app.add_typer(teachers_app, name="teachers")
app.add_typer(bench_app, name="bench")

Settings = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="One knob; may be repeated.")
]
FromFile = Annotated[
    str, typer.Option("-f", "--file", metavar="FILE.yaml", help="Knobs from a file; --set wins.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for a program to read.")]
Out = Annotated[str, typer.Option("--out", metavar="DIR", help="Folder for the results.")]


def main() -> None:
    """Run a command: exit code 0 done, 1 the work failed, 2 the input was wrong."""
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:
            _leave(
                "stopped; what was finished is kept, the same command goes on from there", code=1
            )
        sys.exit(code)
    except TyperException as error:
        told = error.format_message()
        if told.startswith("Usage:"):  # a command without words is answered by its help
            print(told, file=sys.stderr)
            sys.exit(error.exit_code)
        _leave(f"{told} (see --help)", code=error.exit_code)
    except InputError as error:
        _leave(str(error), code=2)
    except WorkError as error:
        _leave(str(error), code=1)
    except BrokenPipeError:
        os._exit(1)  # whoever read the output is gone; flushing it again would only complain
    except Exception as error:
        if os.environ.get("FOPRO_DEBUG"):
            raise
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        _leave(f"unexpected {told} (FOPRO_DEBUG=1 shows where; please report it)", code=1)


def _leave(message: str, *, code: int) -> None:
    print(f"fopro: {message}", file=sys.stderr)
    sys.exit(code)


def _config(kind: "type[ConfigType]", settings: list[str], file: str) -> "ConfigType":
    """Build a config from a file and ``--set``, the latter on top, entry by entry."""
    from fopro_lab.settings import merged, parse_settings, read_yaml

    return kind.from_mapping(
        merged(read_yaml(file) if file else {}, parse_settings(settings), kind=kind)
    )


def _show(values: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(values, indent=2, default=str))
        return
    width = max(map(len, values))
    for name, value in values.items():
        print(f"{name:<{width}}  {json.dumps(value, default=str).strip(chr(34))}")


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

    found = check_data(_config(DataConfig, settings, file))
    if out:
        from fopro_lab.lab.doctor_pages import write_checkup

        write_checkup(found, out=Path(out))
    if as_json:
        print(json.dumps(found.as_dict(), indent=2, allow_nan=False))
    else:
        _show(found.facts, as_json=False)
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

    config = _config(DataConfig, settings, file)
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
        _show({"pictures": len(packed), "size": packed.size} | facts, as_json=True)
        return
    print(f"packed {len(packed)} pictures of {packed.size} px")
    _show(facts, as_json=False)
    for reason in packed.left_out.values():
        print(f"  {reason}")


@teachers_app.command("list")
def teachers_list() -> None:
    """List how a teacher can be named."""
    print("builtin            ResNet-10, 32 to 64 px, in the package, no file needed")
    print("timm:NAME          any model of timm, with weights=FILE")
    print("torchvision:NAME   any classification model of torchvision, with weights=FILE")
    print("moco-v2-resnet50   the published teacher, after `fopro data fetch moco-v2`")


@teachers_app.command("check")
def teachers_check(settings: Settings = [], file: FromFile = "", as_json: AsJson = False) -> None:
    """Load a teacher and print its card: input, hash, key coverage."""
    from fopro_lab.config import TeacherConfig
    from fopro_lab.models import load_from

    _show(load_from(_config(TeacherConfig, settings, file)).card, as_json=as_json)


@teachers_app.command("pretrain")
def teachers_pretrain(
    out: Out = "builtin-teacher",
    settings: Settings = [],
    file: FromFile = "",
    probe: Annotated[
        str, typer.Option(metavar="PATH", help="Data set on which to measure the features.")
    ] = "",
) -> None:
    """Pre-train the built-in teacher on natural pictures; goes on where it was stopped."""
    from fopro_lab.config import PretrainConfig
    from fopro_lab.lab.builtin import make_builtin

    card = make_builtin(_config(PretrainConfig, settings, file), out=Path(out), probe=probe)
    print(json.dumps(card, indent=2))


@app.command()
def train(
    out: Out = "",
    settings: Settings = [],
    file: FromFile = "",
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print every knob, its value and meaning.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train one student: method=ce, bsm, ekd, fopro or random."""
    from fopro_lab.config import TrainConfig
    from fopro_lab.settings import explained

    config = _config(TrainConfig, settings, file)
    if print_config:
        print(explained(config))
        return
    from fopro_lab.training import distill, run_name

    run = distill(config, out=out or Path("runs") / run_name(config))
    scores = run.table(resamples=1000)
    headline = scores[scores["scope"] != "class"]
    if as_json:
        print(headline.to_json(orient="records", indent=2))
        return
    best, chosen = run.manifest["best_epoch"], run.manifest["scores"]["val_balanced_accuracy"]
    print(f"{run.path}: best epoch {best}, validation balanced accuracy {chosen:.3f}; on test:")
    for row in headline.itertuples():
        known = row.low == row.low  # NaN: too few pictures for an interval
        interval = f"{row.low:.3f} to {row.high:.3f}" if known else "no interval"
        print(f"  {row.metric:<20} {row.name:<8} {row.value:.3f} ({interval})  n {row.n}")


@app.command()
def probe(out: Out = "", settings: Settings = [], file: FromFile = "") -> None:
    """Ask a teacher which frequencies it prefers: tables, card and figures in a folder."""
    from fopro_lab.config import ProbeConfig
    from fopro_lab.lab.teacher_pages import write_teacher_card

    config = _config(ProbeConfig, settings, file)
    stem = f"{Path(config.dataset).name}-{config.teacher}".replace(":", "_")
    print(write_teacher_card(config, out=Path(out or Path("probes") / stem)))


@app.command()
def report(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="YAML file: notebooks and knobs.")],
    out: Out = "",
    settings: Settings = [],
    jobs: Annotated[int, typer.Option(help="Notebooks at a time; 0 is one a core.")] = 0,
) -> None:
    """Execute a plan's notebooks and print the path of its index page."""
    from fopro_lab.lab import run_plan

    print(
        run_plan(plan, out=out or Path("reports") / Path(plan).stem, settings=settings, jobs=jobs)
    )


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders, or above.")],
    baseline: Annotated[str, typer.Option(help="Method to compare with.")] = "bsm",
    out: Out = "",
    as_json: AsJson = False,
) -> None:
    """Compare methods over the same test pictures, paired, with intervals."""
    from fopro_lab.evaluation import compare as compare_runs
    from fopro_lab.evaluation import load_runs
    from fopro_lab.files import atomic_path

    table = compare_runs(load_runs(runs), baseline)
    if out:
        with atomic_path(Path(out) / "comparison.csv") as temporary:
            table.to_csv(temporary, index=False)
    if as_json:
        print(table.to_json(orient="records", indent=2))
        return
    for row in table[table["scope"] != "class"].itertuples():
        print(
            f"{row.method:<8} minus {row.baseline:<6} {row.metric:<20} {row.name:<8} "
            f"{row.difference:+.3f} ({row.low:+.3f} to {row.high:+.3f})  n {row.n}, "
            f"seeds {row.seeds}"
        )


@bench_app.command("data")
def bench_data(
    out: Out = "",
    rounds: Annotated[int, typer.Option(help="Rounds that count.")] = 9,
    size: Annotated[int, typer.Option(help="Side of the packed pictures, pixels.")] = 224,
    as_json: AsJson = False,
) -> None:
    """Time batches, packing and opening against PIL and torchvision; needs no data of yours."""
    from fopro_lab.bench import bench_data as run
    from fopro_lab.bench import machine_facts

    tables = run(rounds=rounds, size=size)
    _tell_bench("data", tables, machine_facts(), out=out, as_json=as_json)


def _tell_bench(
    name: str,
    tables: "dict[str, pd.DataFrame]",
    facts: dict[str, Any],
    *,
    out: str,
    as_json: bool,
) -> None:
    """Print a benchmark's tables; with ``--out`` keep them, with a figure of each comparison."""
    from fopro_lab.bench import as_text, write_results

    if as_json:
        rows = {key: json.loads(table.to_json(orient="records")) for key, table in tables.items()}
        print(json.dumps({"machine": facts, "tables": rows}, indent=2))
    else:
        print(f"{facts['processor']}, {facts['cores']} cores, {facts['gpu'] or 'no GPU'}")
        for key, table in tables.items():
            print(f"\n{key}\n{as_text(table)}")
    if out:
        from fopro_lab.lab import figures

        path = write_results(name, tables, out=Path(out), facts=facts)
        for key, table in tables.items():
            if "ratio" in table:
                ax = figures.plot_ratios(table, facts=facts)
                figures.save_figure(ax, path.with_name(f"{path.stem}-{key}.png"))
        print(path, file=sys.stderr)


if __name__ == "__main__":
    main()
