"""The knobs of pictures and splits."""

from typing import Literal

from pydantic import Field

from fopro_lab.config.base import Config

SplitRule = Literal["auto", "draw", "folds", "long-tail", "isic2019-lt", "hyperkvasir"]
Decoder = Literal["exact", "draft"]
Interpolation = Literal["box", "bilinear", "bicubic", "lanczos"]


class DataConfig(Config):
    """Which pictures, how they are split, and at what size they are read."""

    dataset: str = Field("phantom", min_length=1, description="a dataset's name, or a path")
    image_column: str = Field("", description="CSV: column of file names; empty finds it by name")
    class_column: str = Field("", description="CSV: column of classes; empty finds it by name")
    group_column: str = Field(
        "", description="CSV: lesion or patient; pictures of one stay together"
    )
    source_column: str = Field("", description="CSV: scanner or hospital")
    split_column: str = Field(
        "", description="CSV: given split, train, val or test; empty draws one"
    )
    pictures: int = Field(0, ge=0, description="at most this many, stratified by class; 0 is all")
    unusable: Literal["stop", "leave-out"] = Field(
        "stop", description="pictures that cannot be read, or that a published split lacks here"
    )
    image_size: int = Field(64, ge=16, le=1024, description="side of the square picture, pixels")
    decoder: Decoder = Field("exact", description="exact as PIL, or draft: shrunk while decoding")
    interpolation: Interpolation = Field("bilinear", description="of the resize, antialiased")
    split_rule: SplitRule = Field(
        "auto", description="auto: the benchmark's own, else draw; draw, folds, long-tail, ..."
    )
    split_files: str = Field(
        "", description="folder or file of a published split; empty is the fetched one"
    )
    folds: int = Field(5, ge=2, le=20, description="rules 'folds' and 'hyperkvasir': how many")
    fold: int = Field(1, ge=1, le=20, description="which fold is tested, counted from 1")
    tail_ratio: float = Field(
        0.01, gt=0, le=1, description="rules 'long-tail', 'isic2019-lt': smallest to largest class"
    )
    val_fraction: float = Field(0.15, gt=0, lt=0.5, description="share of each class")
    test_fraction: float = Field(0.25, gt=0, lt=0.6, description="share of each class")
    val_per_class: int = Field(0, ge=0, description="balanced validation: pictures a class; 0 off")
    test_per_class: int = Field(0, ge=0, description="balanced test: pictures a class; 0 is off")
    split_seed: int = Field(0, ge=0, description="seed of the split and of the subsample")
    group_rule: Literal["auto", "rank", "count"] = Field(
        "auto", description="head, medium, tail: as published, else thirds by rank; or by count"
    )
    head_above: int = Field(700, ge=1, description="rule 'count': more training pictures is head")
    tail_below: int = Field(70, ge=1, description="rule 'count': fewer training pictures is tail")

    @property
    def rule(self) -> str:
        """The split rule, with ``auto`` resolved by the name of the data set.

        Example:
            >>> from fopro_lab.config import DataConfig
            >>> DataConfig(dataset="hyperkvasir").rule, DataConfig(dataset="phantom").rule
            ('hyperkvasir', 'draw')
        """
        if self.split_rule != "auto":
            return self.split_rule
        return self.dataset if self.dataset in ("isic2019-lt", "hyperkvasir") else "draw"
