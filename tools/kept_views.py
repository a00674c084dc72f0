"""Train many runs in less time on a CPU: students read kept views, a teacher runs in onnxruntime.

`keep_views` patches the training loop; options, draws and student of a run stay what they are. The
views have the same bits; teacher features differ from torch's by some 1e-5, kept as float16. Views
take 4 bytes per value: 20 of 10,000 images at 64 px take 10 GB of disk.
"""

import copy
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from fopro_lab.config import TrainConfig
from fopro_lab.data import apply_augmentations, read_pixels
from fopro_lab.data.batches import VIEW_SEED, Order, batch_parts, draw_augmentations, draw_order
from fopro_lab.data.pack import Pack, pixel_fingerprint
from fopro_lab.models.student import shrink
from fopro_lab.training import teacher_features, train
from fopro_lab.training.setup import TrainSetup

WORST = 1e-3  # of a feature: more than onnxruntime may differ by


class ViewFiles:
    """Views of a pack's images at the student's size, ``float32 (views, N, 3, S, S)``, on disk.

    Several processes may fill it: a view's flag is set after its pixels, which are always the same.
    """

    def __init__(self, folder: Path, packed: Pack, config: TrainConfig) -> None:
        what = config.model_dump(include={"augment", "augment_mode", "student_size"})
        what |= {"images": pixel_fingerprint(packed), "size": config.image_size}
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
        self.packed, self.config = packed, config
        shape = (config.teacher_views, len(packed))
        side = config.student_size or config.image_size
        self.pixels = self._open(
            folder / f"views-{key}-{shape[0]}.f32", "f4", (*shape, 3, side, side)
        )
        self.there = self._open(folder / f"views-{key}-{shape[0]}.there", "u1", shape)

    @staticmethod
    def _open(path: Path, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:  # sparse; a second process finds it at its size
            file.truncate(int(np.prod(shape)) * np.dtype(kind).itemsize)
        return np.memmap(path, kind, "r+", shape=shape)

    def read(self, rows: np.ndarray, views: np.ndarray) -> Tensor:
        """Return ``(B, 3, S, S)``, made first where they are not there."""
        lack = self.there[views, rows] == 0
        if lack.any():
            self.write(rows[lack], views[lack], self.draw(rows[lack], views[lack]))
        return torch.from_numpy(self.pixels[views, rows])

    def write(self, rows: np.ndarray, views: np.ndarray, images: Tensor) -> None:
        """Keep views of whole size."""
        self.pixels[views, rows] = shrink(images, self.config.student_size).numpy()
        self.there[views, rows] = 1

    def draw(self, rows: np.ndarray, views: np.ndarray) -> Tensor:
        """Augment images as `fopro_lab.data.batches` does."""
        config = self.config
        drawn = draw_augmentations(
            rows, views, count=len(self.packed), kind=config.augment, seed=VIEW_SEED
        )
        pixels = read_pixels(self.packed, rows)
        return apply_augmentations(pixels, drawn, mode=config.augment_mode)


class OnnxBody(nn.Module):
    """A teacher's network in onnxruntime, on one thread."""

    def __init__(self, body: nn.Module, example: Tensor) -> None:
        super().__init__()
        with tempfile.TemporaryDirectory() as folder:
            path, count = f"{folder}/body.onnx", torch.export.Dim("count", min=1, max=4096)
            how: dict[str, Any] = {"dynamo": True, "dynamic_shapes": ({0: count},)}
            torch.onnx.export(body.eval(), (example,), path, external_data=False, **how)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            self.session = onnxruntime.InferenceSession(path, options)
        self.input = self.session.get_inputs()[0].name
        with torch.inference_mode():
            worst = float((self(example) - body(example)).abs().max())
        if not worst < WORST:
            raise SystemExit(f"onnxruntime: features differ from torch's by {worst:.3g}")
        sys.stderr.write(f"teacher features come from onnxruntime, {worst:.1g} from torch's\n")

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images ``(B, 3, H, W)`` to features ``(B, D)``."""
        return torch.from_numpy(
            self.session.run(None, {self.input: images.contiguous().numpy()})[0]
        )


def keep_views(folder: Path) -> None:
    """Let the training of this process read views from a folder, and fill what is not there."""
    live_batches, kept_features = train.draw_batches, teacher_features.KeptFeatures
    live_encode, live_what = kept_features._encode, kept_features._what
    files: dict[int, ViewFiles] = {}  # by pack, of which a run has its own

    def files_of(packed: Pack, config: TrainConfig) -> ViewFiles | None:
        plain = config.augment != "none" and not (config.mixup or config.mixup_alpha)
        # A prompt whose features are not kept acts on whole images.
        plain &= config.parts.prompt == "none" or teacher_features.keeps_prompted(config)
        if not (config.teacher_views and plain):
            return None
        if id(packed) not in files:
            files[id(packed)] = ViewFiles(folder, packed, config)
        return files[id(packed)]

    def draw_batches(setup: TrainSetup, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        config, packed, fabric = setup.config, setup.packed, setup.fabric
        alone = fabric.world_size == 1 and fabric.device.type == "cpu"
        kept = files_of(packed, config) if alone else None
        if kept is None:
            yield from live_batches(setup, epoch)
            return
        how = config.model_dump(include={"sampler", "seed", "epochs"})
        order: Order = draw_order(
            packed, setup.split.train, epoch=epoch, views=config.teacher_views, **how
        )
        if epoch == 0:  # a check that costs one batch
            images, labels = next(live_batches(setup, epoch))
            first = order.rows[: len(labels)], order.views[: len(labels)]
            if not torch.equal(shrink(images, config.student_size), kept.read(*first)):
                raise SystemExit(f"{folder}: kept views differ from drawn ones; delete it")
        for part in batch_parts(
            len(order.rows), setup.batch_size, drop_last=True, rank=0, world_size=1
        ):
            labels = torch.from_numpy(packed.labels[order.rows[part]])
            yield kept.read(order.rows[part], order.views[part]), labels

    def in_onnx(self: teacher_features.KeptFeatures) -> bool:
        on_cpu = self.fabric.device.type == "cpu"
        return on_cpu and self.config.precision == "32-true" and self.quicken is None

    def what(
        self: teacher_features.KeptFeatures,
        prompt: teacher_features.Prompt,
        strength: float | None,
    ) -> dict[str, Any]:
        found = live_what(self, prompt, strength)
        return found | (
            {"onnxruntime": True} if in_onnx(self) else {}
        )  # its last digits are others

    def encode(
        self: teacher_features.KeptFeatures,
        prompt: teacher_features.Prompt,
        strength: float | None,
        rows: np.ndarray,
        view: int,
    ) -> Tensor:
        teacher = self.fast_teacher
        if in_onnx(self) and not isinstance(teacher.body, OnnxBody):
            side = teacher.input_size if teacher.resize else self.config.image_size
            body = OnnxBody(teacher.body, torch.randn(3, 3, side, side))
            self.fast_teacher = copy.copy(teacher)  # the training's own stays torch's
            self.fast_teacher._modules = {**teacher._modules, "body": body}
        return live_encode(self, prompt, strength, rows, view)

    train.draw_batches = draw_batches
    kept_features._encode = encode  # type: ignore[method-assign]
    kept_features._what = what  # type: ignore[method-assign]
