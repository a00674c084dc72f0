"""The knobs of teachers: which one is asked, on what, and how a new one is pre-trained."""

from typing import Annotated, Literal

from pydantic import Field

from fopro_lab.config.base import Config
from fopro_lab.config.data import DataConfig


class TeacherConfig(Config):
    """Which frozen network is asked."""

    teacher: str = Field(
        "builtin", min_length=1, description="builtin, timm:NAME, torchvision:NAME"
    )
    weights: str = Field("", description="file with the teacher's weights, safetensors or pickle")
    teacher_size: int = Field(
        0, ge=0, le=1024, description="side of the picture the teacher sees, pixels; 0 is its rule"
    )
    teacher_mean: tuple[float, ...] = Field(
        (), description="normalisation; empty is the weights' own"
    )
    teacher_std: tuple[float, ...] = Field(
        (), description="normalisation; empty is the weights' own"
    )


class ProbeConfig(TeacherConfig, DataConfig):
    """One teacher card: what a teacher does with each frequency of some pictures."""

    rings: int = Field(8, ge=1, le=64, description="rings up to 0.5 cycles per pixel")
    gains: tuple[Annotated[float, Field(ge=0, le=4)], ...] = Field(
        (0.0, 0.5, 2.0, 4.0), min_length=1, description="ring response: factors of the amplitudes"
    )
    per_channel: bool = Field(False, description="ring response also of red, green, blue alone")
    probe_pictures: int = Field(256, ge=1, description="pictures for the ring response")
    band_gains: tuple[Annotated[float, Field(ge=0, le=4)], ...] = Field(
        (0.0, 2.0), min_length=1, description="class bands: factors of the amplitudes"
    )
    band_pictures: int = Field(
        0, ge=0, description="test pictures of each class that are changed, at most; 0 is all"
    )
    cutoffs: tuple[Annotated[float, Field(gt=0, lt=0.7)], ...] = Field(
        (0.0625, 0.125, 0.1875, 0.25, 0.375),
        min_length=1,
        description="low-pass and high-pass ladder, cycles per pixel",
    )
    heat_map: Literal["off", "rings", "blocks", "full"] = Field(
        "blocks", description="Fourier basis heat map; full takes a pass a frequency and sign"
    )
    heat_pictures: int = Field(32, ge=1, description="test pictures of the heat map, about")
    heat_block: int = Field(7, ge=1, le=101, description="side of a block, bins, odd")
    student_run: str = Field("", description="run folder of a trained student, asked as the probe")
    resamples: int = Field(1000, ge=20, description="bootstrap resamples of every interval")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to compute")
    precision: Literal["32-true", "bf16-mixed"] = Field("32-true", description="arithmetic")
    probe_batch: int = Field(64, ge=2, description="pictures a pass")
    seed: int = Field(0, ge=0, description="seed of drawn pictures and bootstraps")


class PretrainConfig(Config):
    """Pre-training of the built-in teacher on natural pictures."""

    natural: str = Field("../shared/data/natural", description="folder with the two zip archives")
    width: int = Field(32, ge=8, le=256, description="channels of the first stage")
    image_size: int = Field(
        32, ge=16, le=32, description="side of the training crop, up to Tiny ImageNet's 32 pixels"
    )
    epochs: int = Field(45, ge=1, description="passes over the pictures")
    batch_size: int = Field(128, ge=2, description="pictures a step")
    learning_rate: float = Field(2e-3, gt=0, description="peak of AdamW's one-cycle schedule")
    weight_decay: float = Field(0.05, ge=0, description="AdamW's decoupled decay")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of the uniform label")
    precision: Literal["32-true", "bf16-mixed"] = Field("32-true", description="arithmetic")
    seed: int = Field(0, ge=0, description="seed of weights, order and crops")
