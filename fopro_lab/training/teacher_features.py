"""Teacher features kept once: of K views per image, read in place of passes of a frozen teacher.

A file per view holds a record per image of the whole data set: features as float16, and their
checksum. So seeds, epochs, losses, methods and folds share them; a record is filled when it is
first needed, by one process while others wait, and one that is damaged is filled again.
"""

import copy
import hashlib
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from pathlib import Path
from shutil import disk_usage
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from fopro_lab.config import TrainConfig
from fopro_lab.data.augment import apply_augmentations, float_images, read_pixels
from fopro_lab.data.batches import (
    VIEW_SEED,
    Order,
    batch_parts,
    draw_augmentations,
    draw_order,
)
from fopro_lab.data.pack import Pack, one_writer, pixel_fingerprint
from fopro_lab.errors import WorkError
from fopro_lab.fourier import FourierPrompt
from fopro_lab.fourier.prompt import Share
from fopro_lab.io import atomic_path, cache_folder, disk_errors, in_bytes, progress, write_json
from fopro_lab.models import Teacher
from fopro_lab.models.teacher import reference_features, state_hash
from fopro_lab.training.run_folder import PROMPTING
from fopro_lab.training.train_prompt import generator_for, prompted

RULES = 1  # raised when the same key would give other features: augmentation, its draws, prompts
CHUNK = 64  # images encoded together


@dataclass(frozen=True, eq=False)
class FeatureFiles:
    """The kept features of one teacher on one pack, in a folder: a file per view."""

    folder: Path
    count: int  # images of the pack
    width: int  # D
    encode: Callable[[np.ndarray, int], Tensor]  # rows and view to features (n, D)
    talk: bool = True

    @property
    def record(self) -> np.dtype:
        """Features divided by the largest of the image, which keeps all in float16's range."""
        return np.dtype([("features", "<f2", (self.width,)), ("scale", "<f4"), ("check", "<u4")])

    def path(self, view: int) -> Path:
        """Return the file of a view."""
        return self.folder / f"view-{view:04d}.npy"

    def fill(self, rows: np.ndarray, view: int) -> int:
        """Encode those rows of a view that are not there or damaged.

        Returns:
            How many were encoded by this process.

        Raises:
            WorkError: If the disk is full or not writable.
        """
        if not len(self._missing(rows, view)):
            return 0
        path = self.path(view)
        with one_writer(path, talk=self.talk, doing="encoding"):
            missing = self._missing(rows, view, say=True)  # another process may have filled some
            if not len(missing):
                return 0
            size, free = len(missing) * self.record.itemsize, disk_usage(self.folder).free
            if size > free:
                raise WorkError(
                    f"{self.folder}: expected {in_bytes(size)} of free space for teacher features, "
                    f"got {in_bytes(free)}; free some, or set FOPRO_CACHE to another disk"
                )
            if self._open(view) is None:
                with atomic_path(path) as new:  # of zeros that take no space until written
                    how: dict[str, Any] = {"dtype": self.record, "shape": (self.count,)}
                    with open(new, "wb") as stream:  # not by its name, which would get an ending
                        header = {"descr": self.record.descr, "fortran_order": False}
                        np.lib.format.write_array_header_1_0(stream, header | {"shape": (self.count,)})
                        stream.truncate(stream.tell() + self.count * how["dtype"].itemsize)
            starts = range(0, len(missing), CHUNK)
            bar = progress(starts, total=len(starts), label=f"teacher features, view {view}")
            with disk_errors(path), open(path, "rb+") as stream:
                offset = path.stat().st_size - self.count * self.record.itemsize
                for start in bar if self.talk else starts:
                    some = missing[start : start + CHUNK]
                    # Written, not mapped: on a full disk a mapped page would end the process.
                    for row, one in zip(some, self._records(some, view), strict=True):
                        stream.seek(offset + int(row) * self.record.itemsize)
                        stream.write(one.tobytes())
        return len(missing)

    def read(self, rows: np.ndarray, views: np.ndarray) -> Tensor:
        """Read filled features, float32 ``(n, D)``, on the CPU."""
        found = np.empty((len(rows), self.width), np.float32)
        for view in np.unique(views).tolist():
            table, places = self._open(view), np.flatnonzero(views == view)
            if table is None:
                raise WorkError(f"{self.path(view)}: the kept features are gone; start again")
            some = table[rows[places]]
            found[places] = some["features"].astype(np.float32) * some["scale"][:, None]
        return torch.from_numpy(found)

    def _records(self, rows: np.ndarray, view: int) -> np.ndarray:
        features = self.encode(rows, view).float().cpu().numpy()
        if not np.isfinite(features).all():
            raise WorkError("teacher: its features are not finite; try precision=32-true")
        records = np.zeros(len(rows), self.record)
        records["scale"] = scale = np.maximum(np.abs(features).max(axis=1), 1e-30)
        records["features"] = features / scale[:, None]
        records["check"] = [_check(one) for one in _as_bytes(records)]
        return records

    def _missing(self, rows: np.ndarray, view: int, *, say: bool = False) -> np.ndarray:
        """Return rows, each once, whose record is not there or is not as it was written."""
        rows, table = np.unique(rows), self._open(view)
        if table is None:
            if say and self.path(view).exists():
                sys.stderr.write(f"{self.path(view)}: damaged; its features are made again\n")
            return rows
        checks, content = np.asarray(table["check"])[rows], _as_bytes(table)
        wrong = np.array([_check(content[row]) for row in rows], dtype=np.uint32) != checks
        if say and (damaged := int((wrong & (checks > 0)).sum())):
            sys.stderr.write(f"{self.path(view)}: {damaged} images damaged; made again\n")
        return rows[wrong]

    def _open(self, view: int) -> np.ndarray | None:
        try:
            table = np.load(self.path(view), mmap_mode="r")
        except (OSError, ValueError, EOFError):  # not there, or not as it was written
            return None
        return table if table.dtype == self.record and table.shape == (self.count,) else None


def _as_bytes(records: np.ndarray) -> np.ndarray:
    return np.asarray(records).view(np.uint8).reshape(len(records), -1)


def _check(one: np.ndarray) -> int:
    """Checksum of a record without its last four bytes, which hold it; 0 means not filled."""
    return zlib.crc32(one[:-4]) or 1


@dataclass(eq=False)
class KeptFeatures:
    """What a run reads in place of passes of its teacher, and how often it could."""

    config: TrainConfig
    fabric: Fabric
    packed: Pack
    teacher: Teacher  # as loaded: what the features are kept under
    fast_teacher: Teacher
    talk: bool = False
    files: dict[str, FeatureFiles] = field(default_factory=dict)

    def batches(
        self,
        train: np.ndarray,
        *,
        epoch: int,
        batch_size: int,
        prompt: FourierPrompt | None,
        is_prompted: np.ndarray,
        counts: dict[str, int],
    ) -> Iterator[Tensor | None]:
        """Yield the features ``(B, D)`` of each batch of an epoch; None where they are not kept.

        Args:
            train: Rows of the training images.
            epoch: Counted from 0.
            batch_size: Of all processes.
            prompt: That of this epoch.
            is_prompted: ``bool (batches,)``, which ones the teacher sees behind the prompt.
            counts: Gets the images whose features are ``needed``, and those ``found``.
        """
        config, fabric = self.config, self.fabric
        how = config.model_dump(include={"sampler", "seed", "epochs"})
        order = draw_order(self.packed, train, epoch=epoch, views=config.teacher_views, **how)
        sizes: dict[str, Any] = {"batch_size": batch_size, "drop_last": True}
        batch_of = np.arange(len(is_prompted) * batch_size) // batch_size
        by_state: dict[bool, FeatureFiles] = {}
        counts["needed"] = counts.get("needed", 0) + len(batch_of)
        for state in (False, True):
            chosen = np.flatnonzero(is_prompted[batch_of] == state)
            if not len(chosen) or (state and not keeps_prompted(config)):
                continue
            by_state[state] = self.files_of(prompt if state else None)
            rows, views = order.rows[chosen], order.views[chosen]
            done = 0
            with fabric.rank_zero_first(local=True):  # a machine's others find them
                for view in np.unique(views).tolist():
                    done += by_state[state].fill(rows[views == view], view)
            counts["found"] = counts.get("found", 0) + len(chosen) - done
        shared = {"rank": fabric.global_rank, "world_size": fabric.world_size}
        parts = batch_parts(len(order.rows), **sizes, **shared)
        return self._read(order, parts, [by_state.get(bool(state)) for state in is_prompted])

    def _read(
        self, order: Order, parts: list[slice], sources: list[FeatureFiles | None]
    ) -> Iterator[Tensor | None]:
        device = self.fabric.device
        for part, files in zip(parts, sources, strict=True):
            if files is None:
                yield None
                continue
            features = files.read(order.rows[part], order.views[part])
            cuda = device.type == "cuda"
            features = features.pin_memory() if cuda else features
            yield features.to(device, non_blocking=cuda)

    def files_of(self, prompt: FourierPrompt | None) -> FeatureFiles:
        """Find the files of the teacher behind a prompt, or behind none."""
        what = self._key(prompt)
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:20]
        if key not in self.files:
            folder = cache_folder() / f"features-{self.teacher.name.replace(':', '-')[:40]}-{key}"
            encode = partial(self._encode, prompt)
            width = self.teacher.feature_dim
            self.files[key] = FeatureFiles(folder, len(self.packed), width, encode, self.talk)
            with one_writer(folder / "what", talk=self.talk, doing="encoding"):
                write_json(folder / "what.json", what)
            if self.talk:
                views = min(self.config.teacher_views, self.config.epochs)
                most = views * len(self.packed) * self.files[key].record.itemsize
                sys.stderr.write(
                    f"fopro: teacher features of {views} views are kept in {folder}, at most "
                    f"{in_bytes(most)}; it may be removed at any time\n"
                )
        return self.files[key]
