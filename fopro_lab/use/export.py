"""A student as a file that other programs run, its preprocessing inside, and its model card."""

import io
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fopro_lab.data import float_images, open_dataset
from fopro_lab.data.decoding import resize_square
from fopro_lab.data.fetch import find_source
from fopro_lab.errors import InputError, WorkError
from fopro_lab.evaluation import Calibration, calibrate, with_interval
from fopro_lab.evaluation.prior_shift import measure_under_prior
from fopro_lab.evaluation.scores import align
from fopro_lab.io import quiet, write_file
from fopro_lab.models.student import shrink
from fopro_lab.training import TrainedRun
from fopro_lab.use.predict import NOTICE, TEMPLATES

AXES: Any = {0: "batch", 1: "height", 2: "width"}  # of the images, whose length is free
SIZES = ((64, 64), (97, 131), (203, 150))  # of the self-test's images
TOLERANCE = 1e-3  # of probabilities; another resampling filter or order of colours exceeds it
Exported = tuple[bytes, Callable[[np.ndarray], Any]]  # a file's content, and what it answers
EXAMPLE = (torch.zeros(2, 37, 53, 3, dtype=torch.uint8),)
FILTERS: dict[str, Callable[[Tensor], Tensor]] = {  # Pillow's
    "box": lambda x: ((x > -0.5) & (x <= 0.5)).float(),
    "bilinear": lambda x: (1 - x.abs()).clamp(min=0),
    "bicubic": lambda x: (
        ((1.5 * x.abs() - 2.5) * x**2 + 1) * (x.abs() < 1)
        + (((2.5 - x.abs() / 2) * x.abs() - 4) * x.abs() + 2) * (x.abs() >= 1) * (x.abs() < 2)),
    "lanczos": lambda x: torch.sinc(x) * torch.sinc(x / 3) * (x.abs() < 3),
}  # fmt: skip


class DeployedStudent(nn.Module):
    """A student from decoded images of any size, ``uint8 (B, H, W, 3)``, RGB, to its answers."""

    def __init__(self, run: TrainedRun, calibration: Calibration) -> None:
        super().__init__()
        self.student, self.config = run.student(), run.train_config
        self.temperature = calibration.temperature

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and calibrated probabilities, ``(B, K)``."""
        size, side = self.config.image_size, self.config.student_size
        seen = resize(images.movedim(3, 1).float(), size, self.config.interpolation, whole=True)
        seen = resize(seen / 255, side, "bilinear") if side not in (0, size) else seen / 255
        normalised = (seen - self.student.mean) / self.student.std
        logits = self.student.classifier(self.student.backbone(normalised))
        return logits, torch.softmax(logits / self.temperature, dim=1)


def resize(images: Tensor, size: int, kind: str, *, whole: bool = False) -> Tensor:
    """Resize first rows, then columns, antialiased; as Pillow each time to ``whole`` levels."""
    for dim in (3, 2):
        places = torch.arange(images.shape[dim]) + 1.0
        scale = places[-1:] / size  # a tensor: the exported graph takes any length
        centres = (torch.arange(size)[:, None] + 0.5) * scale
        weights = FILTERS[kind]((places - 0.5 - centres) / scale.clamp(min=1))
        weights = weights / weights.sum(dim=1, keepdim=True)
        images = images @ weights.T if dim == 3 else weights @ images
        images = (images + 0.5).floor().clamp(0, 255) if whole else images
    return images


def export_student(run: TrainedRun, files: Sequence[Path | str]) -> dict[str, str]:
    """Write a finished run's student: as ONNX, for `torch.export.load`, or as model card.

    The ending decides: ``.onnx``, ``.pt2`` or ``.md``. The first two take decoded images, ``uint8
    (B, H, W, 3)``, RGB, of any size, and give ``logits`` and ``probabilities (B, K)``; outside
    remains decoding, with EXIF orientation, 16 bits and transparency. Each is first compared with
    the answers of `predict` on images of several sizes; what that found is returned.

    Raises:
        InputError: If the run has no student, or a package of the extra ``export`` is missing.
        WorkError: If the exported student answers otherwise.
    """
    writers = {".onnx": to_onnx, ".pt2": to_pt2, ".md": None}
    endings = [Path(file).suffix for file in files]
    if not files or not set(endings) <= set(writers):
        got = ", ".join(map(str, files)) or "none"
        raise InputError(f"export: expected files of the endings {', '.join(writers)}, got {got}")
    if ".onnx" in endings:
        need("onnx", "onnxscript", "onnxruntime", extra="export")
    calibration, done = calibrate(run), dict[str, str]()
    deployed = DeployedStudent(run, calibration).eval().requires_grad_(False)
    facts: dict[str, Any] = {"class_names": run.class_names, "notice": NOTICE}
    facts |= {"temperature": calibration.temperature, "coverage": calibration.coverage}
    facts["set_limits"] = np.minimum(calibration.limits, 1).tolist()  # 1 is in every set
    texts = {name: json.dumps(value) for name, value in facts.items()}
    for file in sorted(map(str, files), key=lambda file: file.endswith(".md")):
        if write := writers[Path(file).suffix]:
            with torch.no_grad(), quiet():  # torch warns of its own parts
                content, answer = write(deployed, texts)
                done[file] = self_test(deployed, answer)
        else:
            content, done[file] = model_card(run, calibration, done).encode(), "model card"
        write_file(file, content)
    return done


def to_pt2(deployed: DeployedStudent, texts: dict[str, str]) -> Exported:
    """Export for `torch.export.load`."""
    sides = {dim: torch.export.Dim(name, min=min(dim + 1, 2)) for dim, name in AXES.items()}
    program, stream = torch.export.export(deployed, EXAMPLE, dynamic_shapes=(sides,)), io.BytesIO()
    torch.export.save(program, stream, extra_files=texts)
    answer = torch.export.load(io.BytesIO(stream.getvalue())).module()
    return stream.getvalue(), lambda images: answer(torch.from_numpy(images))


def to_onnx(deployed: DeployedStudent, texts: dict[str, str]) -> Exported:
    """Export as ONNX, to be answered by onnxruntime."""
    from onnx.helper import set_model_props
    from onnxruntime import InferenceSession

    how: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits", "probabilities"]}
    how |= {"dynamic_shapes": (AXES,), "dynamo": True, "verbose": False}
    made: Any = torch.onnx.export(deployed, EXAMPLE, **how)
    set_model_props(made := made.model_proto, texts)
    session = InferenceSession(content := made.SerializeToString())
    return content, lambda images: session.run(None, {"images": images})


def self_test(deployed: DeployedStudent, answer: Callable[[np.ndarray], Any]) -> str:
    """Compare an exported student's probabilities with those of images that Pillow resizes."""
    reader, config, apart = open_dataset("phantom", images=24).reader, deployed.config, 0.0
    how: dict[str, Any] = {"size": config.image_size, "interpolation": config.interpolation}
    for size in SIZES:
        images = [Image.fromarray(reader(row, 64)).resize(size) for row in range(8)]
        pixels = np.stack([resize_square(np.asarray(image), **how) for image in images])
        seen = shrink(float_images(torch.from_numpy(pixels)), config.student_size)
        wanted = torch.softmax(deployed.student.classify(seen) / deployed.temperature, dim=1)
        found = answer(np.stack([np.asarray(image) for image in images]))[1]
        apart = max(apart, float(np.abs(np.asarray(found) - wanted.numpy()).max()))
    if not apart <= TOLERANCE:
        rule = f"expected probabilities within {TOLERANCE} of the run's own"
        raise WorkError(f"export: {rule}, got {apart:.3g} apart; not written")
    return f"probabilities within {apart:.1e} of the run's own, {len(SIZES)} image sizes"


def model_card(run: TrainedRun, calibration: Calibration, tested: dict[str, str]) -> str:
    """Write the model card of a finished run as Markdown: data, n, recall, limits, licence."""
    scores, dataset = run.table(), run.train_config.dataset
    scores["text"] = [with_interval(r.value, r.low, r.high) for r in scores.itertuples()]
    licence = "generated" if dataset == "phantom" else "as their owner says"
    with suppress(InputError):
        licence = find_source(dataset.removesuffix("-lt")).licence
    val = run.predictions.query("split == 'val'")["label"].value_counts()
    images, shares = align([run.predictions], run.groups), calibration.shares
    scaled, once = images.logits[0] / calibration.temperature, np.ones((len(images.labels), 1))
    found = measure_under_prior(scaled, images.labels, once, prior=shares, old=shares)
    about = {"run": run, "calibration": calibration, "tested": tested, "notice": NOTICE}
    about |= {"scores": scores.to_dict("records"), "val": val.to_dict(), "licence": licence}
    about |= {"ece": float(found["ece"][0]), "config": run.train_config, "manifest": run.manifest}
    return TEMPLATES.get_template("card.md.j2").render(about)


def need(*packages: str, extra: str) -> None:
    """Refuse to go on without the packages of an extra."""
    for name in [name for name in packages if find_spec(name) is None]:
        raise InputError(f"{name}: not installed; pip install 'fopro_lab[{extra}]'")
