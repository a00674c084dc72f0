"""An executed notebook as one HTML page that needs no network."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from fopro_lab.files import atomic_path
from fopro_lab.lab.fitting import fit

if TYPE_CHECKING:
    import nbformat

TEMPLATES = Path(__file__).parent / "templates"

# The first form that an output has is shown. Widgets are not among them: they need a kernel, and
# those of this project bring a still along.
_SHOWN = ["text/html", "image/svg+xml", "image/png", "image/jpeg", "text/markdown", "text/plain"]


@cache
def templates() -> jinja2.Environment:
    """Return the environment that renders the report's own templates, with escaping on.

    Example:
        >>> templates().get_template("index.html.j2").name
        'index.html.j2'
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_notebook_page(notebook: "nbformat.NotebookNode", path: Path | str, *, name: str) -> None:
    """Write the page of an executed notebook; figures too large for it lie beside, whole.

    Args:
        notebook: Executed notebook, format 4; left as it is.
        path: Of the page; what it cannot hold is written into the folder of the same name without
            its ending, and linked to.
        name: Name of the node, shown above the title.

    Raises:
        WorkError: If the disk is full or may not be written.
    """
    path = Path(path)
    fitting, beside = fit(notebook, folder=path.stem)
    for old in path.with_suffix("").glob("figure-*"):
        old.unlink()
    for file, content in beside.items():
        with atomic_path(path.with_suffix("") / file) as temporary:
            temporary.write_bytes(content)
    with atomic_path(path) as temporary:
        temporary.write_text(notebook_page(fitting, name=name), encoding="utf-8")


def notebook_page(notebook: "nbformat.NotebookNode", *, name: str) -> str:
    """Render an executed notebook: prose and figures in sight, code folded away.

    nbconvert's own templates fetch MathJax, RequireJS and the widgets' manager from the web; this
    one brings its style along and runs no script.

    Args:
        notebook: Executed notebook, format 4.
        name: Name of the node, shown above the title.

    Returns:
        The page, with figures inlined and a link back to ``../index.html``.

    Example:
        >>> from nbformat.v4 import new_markdown_cell, new_notebook
        >>> page = notebook_page(new_notebook(cells=[new_markdown_cell("# A title")]), name="a")
        >>> "<title>A title</title>" in page, "://" in page
        (True, False)
    """
    from nbconvert.exporters import HTMLExporter
    from traitlets.config import Config

    exporter = HTMLExporter(
        config=Config(NbConvertBase={"display_data_priority": _SHOWN}),
        template_name="notebook",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_anchor_links=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    resources: dict[str, Any] = {
        "page": {"title": _title(notebook) or name, "name": name, "css": stylesheet(code=True)}
    }
    page, _ = exporter.from_notebook_node(notebook, resources=resources)
    return page


def _title(notebook: "nbformat.NotebookNode") -> str:
    """The first heading of the notebook, without its marks."""
    lines = (line for cell in notebook.cells for line in cell.source.splitlines())
    return next((line[2:].strip() for line in lines if line.startswith("# ")), "")


@cache
def stylesheet(*, code: bool = False) -> str:
    """Return the pages' style, light and dark.

    Args:
        code: Whether to add the colours of highlighted Python.

    Example:
        >>> "prefers-color-scheme: dark" in stylesheet()
        True
    """
    css = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    if not code:
        return css
    from pygments.formatters import HtmlFormatter

    light, dark = (
        HtmlFormatter(style=style, nobackground=True).get_style_defs(".highlight")
        for style in ("default", "github-dark")  # both keep a contrast of 4.5
    )
    return f"{css}\n{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
