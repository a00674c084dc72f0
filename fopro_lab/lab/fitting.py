"""An executed notebook made to fit a page: large figures shrunk, endless texts cut, both said."""

import base64
import copy
import html
from typing import TYPE_CHECKING, Any

from fopro_lab.lab.thumbnails import as_address, shrink

if TYPE_CHECKING:
    import nbformat

BUDGET = 3_800_000  # characters of all figures of a page; with the rest it stays below 5 MB
LONGEST = 60_000  # characters of one text output
_TEXTS = 600_000  # and of all
_SMALL = 60_000  # characters; a figure below is never touched
_STEPS = ((1400, 88), (1100, 82), (900, 78), (700, 72), (500, 66), (360, 60))  # pixels, quality
_ENDINGS = {"image/png": "png", "image/jpeg": "jpg"}


def fit(
    notebook: "nbformat.NotebookNode", *, folder: str, budget: int = BUDGET
) -> tuple["nbformat.NotebookNode", dict[str, bytes]]:
    """Shrink what is too much for one page.

    Nothing is changed while all figures together stay within the budget. Otherwise the large ones
    become WebP pictures of fewer pixels, each a link to the whole figure beside the page. A text
    output that is very long loses its middle, and says how much.

    Args:
        notebook: Executed notebook, format 4; left as it is.
        folder: Folder of the whole figures, as seen from the page.
        budget: Characters that all inlined figures may take.

    Returns:
        The notebook for the page, and the content of each file for the folder.

    Example:
        >>> from nbformat.v4 import new_notebook
        >>> fit(new_notebook(), folder="a")[1]
        {}
    """
    fitting = copy.deepcopy(notebook)
    outputs = [output for cell in fitting.cells for output in cell.get("outputs", [])]
    _cut_texts(outputs)
    figures = [(output, *found) for output in outputs if (found := _figure(output))]
    size = sum(len(text) for _, _, text in figures)
    if size <= budget:
        return fitting, {}
    large = [figure for figure in figures if len(figure[2]) > _SMALL]
    kept = size - sum(len(text) for _, _, text in large)
    share = max(8_000, (budget - kept) // max(1, len(large)))
    beside = {}
    for number, (output, kind, text) in enumerate(large, start=1):
        whole = base64.b64decode(text)
        small = _shrunk(whole, share)
        if small:
            file = f"figure-{number:03d}.{_ENDINGS[kind]}"
            beside[file] = whole
            output["data"] = {"text/html": _linked(small, f"{folder}/{file}")}
    return fitting, beside


def _figure(output: Any) -> tuple[str, str] | None:
    """Return kind and text of an output's picture, if that is what the page would show."""
    data = output.get("data", {})
    if "text/html" in data or "image/svg+xml" in data:
        return None
    return next(((kind, str(data[kind])) for kind in _ENDINGS if kind in data), None)


def _shrunk(whole: bytes, share: int) -> str:
    """The address of the largest version within the share; empty if it cannot be read."""
    for width, quality in _STEPS:
        try:
            small = as_address(shrink(whole, width=width, quality=quality))
        except OSError:  # no picture that Pillow knows: the page shows it as it is
            return ""
        if len(small) <= share:
            break
    return small


def _linked(address: str, target: str) -> str:
    return (
        f'<a class="whole" href="{html.escape(target)}"><img src="{address}" '
        'alt="Figure of the cell above, smaller than it is"></a>'
        f'<p class="note">Shown smaller: <a href="{html.escape(target)}">the whole figure</a>.</p>'
    )


def _cut_texts(outputs: list[Any]) -> None:
    """Cut the middle out of endless texts, and of all later ones once the page has enough."""
    left = _TEXTS
    for output in outputs:
        holder, key = (
            (output, "text") if "text" in output else (output.get("data", {}), "text/plain")
        )
        text = holder.get(key)
        if isinstance(text, str):
            holder[key] = _cut(text, max(2_000, min(LONGEST, left)))
            left -= len(holder[key])


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    cut = len(text) - most
    told = f"\n\n... {cut:,} characters are left out here; the executed notebook has them ...\n\n"
    return text[: most // 2] + told + text[-(most // 2) :]
