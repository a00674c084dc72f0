"""The explorer's words: small pieces of HTML, each of a fixed height, so that nothing jumps."""

from collections.abc import Iterable, Sequence
from html import escape

from fopro_lab.lab.bands import BandView
from fopro_lab.lab.widgets.answers import StudentAnswer


def told_picture(view: BandView) -> str:
    """Say how far the picture is moved, and what share of it is clipped for the eye.

    Example:
        >>> import torch
        >>> from fopro_lab.lab.bands import BandLens
        >>> told_picture(BandLens(torch.full((3, 16, 16), 0.5)).look(torch.ones(1, 16, 9)))
        '<div ...>Changed by 0.0000 RMS of [0, 1]; 0.0% of the values leave it.</div>'
    """
    share = f"Changed by {view.moved:.4f} RMS of [0, 1]; {view.clipped:.1%} of the values leave it."
    return f'<div style="min-height:1.6em">{share}</div>'


def told_later(body: str, *, pending: bool) -> str:
    """Put an answer into a frame that a screen reader follows; an old one is dimmed.

    Example:
        >>> "updating" in told_later("drift 0.1", pending=True)
        True
    """
    note = "updating ..." if pending else "&nbsp;"
    dim = ' style="opacity:.45"' if pending else ""
    return (
        f'<div aria-live="polite" aria-busy="{str(pending).lower()}"><div{dim}>{body}</div>'
        f'<div style="color:#595959;font-style:italic">{note}</div></div>'
    )


def told_message(text: str) -> str:
    """Tell what a button did, or why it did not; several lines are kept.

    Example:
        >>> told_message("a < b")
        '<div role="status" style="min-height:3em">a &lt; b</div>'
    """
    lines = "<br>".join(escape(text).splitlines())
    return f'<div role="status" style="min-height:3em">{lines}</div>'


def told_refused(lines: Sequence[str]) -> str:
    """Tell which runs are not among the students, the first of them with its reason.

    Example:
        >>> "2 runs left out; the first: a: unfinished" in told_refused(["a: unfinished", "b: old"])
        True
    """
    count = f"{len(lines)} run{'s' if len(lines) > 1 else ''} left out; the first: "
    return told_message(f"{count}{lines[0]}" if lines else "")


def told_teacher(name: str, *, drift: float, mean: float, number: int) -> str:
    """Tell a teacher's drift of the picture and of the small set.

    Example:
        >>> told_teacher("builtin", drift=0.25, mean=0.5, number=16)
        '<b>Teacher builtin</b>: drift (1&nbsp;-&nbsp;cos) 0.2500 here, mean of 16: 0.5000.'
    """
    return (
        f"<b>Teacher {escape(name)}</b>: drift (1&nbsp;-&nbsp;cos) {drift:.4f} here, "
        f"mean of {number}: {mean:.4f}."
    )


def told_student(name: str, answer: StudentAnswer) -> str:
    """Tell a student's three most probable classes and its recall of each class.

    Args:
        name: Of the student.
        answer: What it said.

    Returns:
        Two tables as HTML.
    """
    top = _table(
        ("Class", "Probability after", "Change, points"),
        (
            (row.name, f"{row.after:.3f}", f"{100 * (row.after - row.before):+.1f}")
            for row in answer.top.itertuples(index=False)
        ),
    )
    recalls = _table(
        ("Class", "Found before", "Found after", "Change, points"),
        (
            (
                row.name,
                f"{row.before} of {row.n}",
                f"{row.after} of {row.n}",
                f"{100 * (row.after - row.before) / row.n:+.0f}",
            )
            for row in answer.recalls.itertuples(index=False)
        ),
    )
    total = int(answer.recalls["n"].sum())
    return (
        f"<b>Student {escape(name)}</b>: this picture{top}"
        f"{total} validation pictures, mean recall {100 * answer.change:+.1f} points{recalls}"
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    cells = [f"<th scope='col' style='padding:0 .8em 0 0'>{name}</th>" for name in head]
    lines = ["".join(cells)]
    for row in rows:
        lines.append("".join(f"<td style='padding:0 .8em 0 0'>{escape(x)}</td>" for x in row))
    body = "".join(f"<tr style='text-align:left'>{line}</tr>" for line in lines)
    return f"<table style='border-collapse:collapse;line-height:1.35'>{body}</table>"
