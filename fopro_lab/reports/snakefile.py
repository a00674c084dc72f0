"""A plan as a Snakefile, whose rules call papermill with the parameters of `fopro report`."""

import json
import os
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import jinja2

from fopro_lab.io import write_file, write_json
from fopro_lab.reports.pages import TEMPLATES
from fopro_lab.reports.plan import plan_nodes


def write_snakefile(
    plan: Path | str,
    *,
    file: Path | str,
    out: Path | str,
    settings: Sequence[str] = (),
    files: Sequence[Path | str] = (),
    limit: float = 0.0,
) -> Path:
    """Write a plan's notebooks as rules, and their parameters as files below ``out/parameters``.

    Arguments are those of `run_plan`. Not written: pages and index, and what else a report checks
    before it keeps a result; Snakemake goes by the times of files.
    """
    out = Path(out)
    nodes = plan_nodes(plan, out=out, settings=settings, files=files, limit=limit)
    nodes = [node for node in nodes if not node.left_out]
    made = {node.name: str(out / "notebooks" / f"{node.name}.ipynb") for node in nodes}
    rules = []
    for node in nodes:
        parameters = out / "parameters" / f"{node.name}.json"  # JSON is YAML
        values = json.loads(json.dumps({**node.parameters, **node.places}, default=str))
        # As an input: other parameters are executed again, and the same ones keep their time.
        if not parameters.is_file() or json.loads(parameters.read_text("utf-8")) != values:
            write_json(parameters, values)
        notebook = os.path.relpath(node.notebook.path)
        rule: dict[str, Any] = {"name": node.name, "made": made[node.name], "notebook": notebook}
        rule |= {"folder": str(out / node.name), "minutes": ceil(node.limit / 60)}
        before = [str(parameters), notebook, *(made[n] for n in node.after if n in made)]
        rules.append({**rule, "before": before})
    template = jinja2.Template((TEMPLATES / "Snakefile.j2").read_text("utf-8"), trim_blocks=True)
    write_file(file, template.render(plan=plan, file=file, rules=rules))
    return Path(file)
