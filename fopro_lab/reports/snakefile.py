"""A plan as a Snakefile, whose rules call papermill with the parameters of `fopro report`."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from fopro_lab.io import atomic_path, write_json
from fopro_lab.reports.plan import plan_nodes

HEAD = """# Written by `fopro report {plan} --snakefile`: a rule per notebook.
# Paths mean the folder in which that was called; call it there: snakemake -s {file} --cores 2
# One GPU for all: --resources gpu=1. Pages and index come from fopro report, which executes again.

rule all:
    input: {outputs}
"""
RULE = """
rule:
    name: {name}
    input: {before}
    output: {output}
    params: notebook={notebook}, parameters={parameters}, folder={folder}
    resources: gpu=1{limit}
    shell:
        "mkdir -p {{params.folder:q}} && "
        "papermill --kernel python3 --language python --cwd . --no-progress-bar "
        "--parameters_file {{params.parameters:q}} {{params.notebook:q}} {{output:q}}"
"""


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
    parts = [HEAD.format(plan=plan, file=file, outputs=list(made.values()))]
    for node in nodes:
        parameters = out / "parameters" / f"{node.name}.json"  # JSON is YAML
        text = json.dumps({**node.parameters, **node.places}, default=str)
        # As an input: other parameters are executed again, and the same ones keep their time.
        if not parameters.is_file() or json.loads(parameters.read_text("utf-8")) != json.loads(
            text
        ):
            write_json(parameters, json.loads(text))
        notebook = os.path.relpath(node.notebook.path)
        parts.append(
            RULE.format(
                name=repr(node.name),
                before=[str(parameters), notebook, *(made[n] for n in node.after if n in made)],
                output=repr(made[node.name]),
                notebook=repr(notebook),
                parameters=repr(str(parameters)),
                folder=repr(str(out / node.name)),
                limit=f", runtime={max(1, round(node.limit / 60))}" if node.limit else "",
            )
        )
    with atomic_path(file) as temporary:
        temporary.write_text("".join(parts), encoding="utf-8")
    return Path(file)
