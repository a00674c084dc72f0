"""Pages to look at: an index and notebooks' pages, made without any kernel."""

import base64
import io
from dataclasses import replace
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from fopro_lab.reports.pages import write_index, write_notebook_page
from fopro_lab.reports.plan import NodeReport, Report

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
METHODS = ("bsm", "ekd", "fopro", "random")


def image(*, seed: int = 0, size: tuple[int, int] = (700, 400)) -> bytes:
    """A white PNG of its own content."""
    stream = io.BytesIO()
    Image.new("RGB", size, (255, 255, 254 - seed % 200)).save(stream, "PNG")
    return stream.getvalue()


def write_report(out: Path) -> Path:
    """Write an index of a verdict, many runs, one of them failed, and one that waited for it."""
    nodes = [NodeReport("tail", "tail", "done", 8.0, "tail", "pages/tail.html")]
    for place in range(6):
        name = f"train-{METHODS[place % 4]}-{place // 4}"
        given = {"dataset": "../a/rather/long/path/to/some/images", "gains": [0.0, 2.0]}
        given |= {"method": METHODS[place % 4], "seed": place // 4}
        node = NodeReport(name, "train", "done", 61.0, name, f"pages/{name}.html", "", given)
        nodes.append(node)
    why = "InputError: weights: a/very/long/path/that/does/not/break: no such file"
    nodes[2] = replace(nodes[2], state="failed", reason=why)
    for number, node in enumerate(nodes):
        (out / node.folder).mkdir(parents=True)
        for each in range(2):
            (out / node.folder / f"figure_{each}.png").write_bytes(image(seed=2 * number + each))
        notebook = failed_notebook() if node.state == "failed" else notebook_with_widgets()
        write_notebook_page(notebook, out / node.page, name=node.name)
    names = ("balanced_accuracy", "tail", "head")
    ends = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    lines = [f"toy/seed0,{method},2,2100" + ",0.4,0.3,0.9" * 3 for method in METHODS]
    table = [",".join(["protocol,method,seeds,n", *ends]), *lines, ""]
    (out / "tail" / "headline.csv").write_text("\n".join(table))
    nodes.append(NodeReport("last", "last", "skipped", reason="waits for train-ekd-0"))
    facts = {"Plan": "plans/toy.yaml", "Commit": "abc123", "Finished": "2026-11-24 04:00 UTC"}
    report = Report("Toy: a title long enough to wrap", "What is asked here.", nodes, facts)
    (out / "notebooks").mkdir()
    (out / "report.json").write_text("{}")
    return write_index(report, out=out)


def notebook_with_widgets() -> NotebookNode:
    """An executed notebook: prose, a wide table, a figure, a slider with its still, long lines."""
    wide = "<table><tr>" + "".join(f"<th>column_{k}</th>" for k in range(20)) + "</tr></table>"
    figure = {"image/png": base64.b64encode(image()).decode()}
    slider = {WIDGET_VIEW: {"model_id": "x", "version_major": 2, "version_minor": 0}}
    still = {**slider, "text/plain": "slider", **figure}
    cells = [
        new_markdown_cell("# Which rings?\n\nA question, and [a link](#there)."),
        new_code_cell("rings = 8", metadata={"tags": ["parameters"]}),
        *(new_code_cell("show()", outputs=[new_output("display_data", data=data)])
          for data in ({"text/html": wide}, figure, still)),
        new_code_cell("print()", outputs=[new_output("stream", text="x" * 500 + "\n")]),
        new_code_cell(f"print('{'long ' * 60}')"),
    ]  # fmt: skip
    state = {WIDGET_STATE: {"state": {"x": {"model_name": "IntSliderModel"}}, "version_major": 2}}
    return new_notebook(cells=cells, metadata={"widgets": state})


def failed_notebook() -> NotebookNode:
    """A notebook with a red cell, marked as papermill marks it."""
    mark = '<span id="papermill-error-cell" style="color:red">Execution stopped here.</span>'
    error = new_output("error", ename="InputError", evalue="no such file", traceback=["trace"])
    cells = [new_markdown_cell("# Broken"), *[new_markdown_cell("Words.\n\n" * 30)]]
    return new_notebook(
        cells=[*cells, new_markdown_cell(mark), new_code_cell("1 / 0", outputs=[error])]
    )
