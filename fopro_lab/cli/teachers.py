"""`fopro teachers ...`: list, check, pre-train the built-in one."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fopro_lab.cli.options import KINDS, AsJson, FromFile, Out, Settings, read_config, show

teachers_app = typer.Typer(help="Frozen teachers: list, check, pre-train the built-in.", **KINDS)


@teachers_app.command("list")
def teachers_list() -> None:
    """List how a teacher can be named."""
    print("builtin            ResNet-10, 32 to 64 px, in the package, no file needed")
    print("timm:NAME          any model of timm, with weights=FILE")
    print("torchvision:NAME   any classification model of torchvision, with weights=FILE")
    print("cifar-resnetDEPTH  the ResNets of CIFAR-10, 32 px, with weights=FILE")
    print("moco-v2-resnet50   the published teacher, after `fopro data fetch moco-v2`")


@teachers_app.command("check")
def teachers_check(settings: Settings = [], file: FromFile = "", as_json: AsJson = False) -> None:
    """Load a teacher and print its card: input, hash, key coverage."""
    from fopro_lab.config import TeacherConfig
    from fopro_lab.models import load_from

    show(load_from(read_config(TeacherConfig, settings, file)).card, as_json=as_json)


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

    card = make_builtin(read_config(PretrainConfig, settings, file), out=Path(out), probe=probe)
    print(json.dumps(card, indent=2))
