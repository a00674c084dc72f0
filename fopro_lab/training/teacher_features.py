"""Teacher features kept once: of K views per image, read in place of passes of a frozen teacher.

A file per view holds a record per image of the whole data set: features as float16, and their
checksum. So seeds, epochs, losses, methods and folds share them; a record is filled when it is
first needed, by one process while others wait, and one that is damaged is filled again.
"""

import copy
import hashlib
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from shutil import disk_usage
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from fopro_lab.config import TrainConfig
from fopro_lab.data import Pack, batches
from fopro_lab.data.batches import VIEW_SEED, batch_parts, draw_order, read_ahead
from fopro_lab.data.benchmarks import open_array
from fopro_lab.data.pack import one_writer, pixel_fingerprint
from fopro_lab.errors import InputError, WorkError
from fopro_lab.fourier import FourierPrompt
from fopro_lab.fourier.prompt import Share
from fopro_lab.io import atomic_path, cache_folder, disk_errors, in_bytes, progress, write_json
from fopro_lab.models import Teacher
from fopro_lab.models.teacher import reference_features, state_hash
from fopro_lab.training.statistics import hash_natural
from fopro_lab.training.train_prompt import generator_for, prompted

RULES = 3  # raised when the same key would give other features: augmentation, its draws, prompts
CHUNK = 64  # images encoded together
Prompt: TypeAlias = "FourierPrompt | Literal['vptta'] | None"


@dataclass(eq=False)
class FeatureFiles:
    """The kept features of one teacher on one pack, in a folder: a file per view."""

    folder: Path
    count: int  # images of the pack
    width: int  # D
    encode: Callable[[np.ndarray, int], Tensor]  # rows and view to features (n, D)
    notice: str = ""  # said before the first record is written
    talk: bool = True

    @property
    def record(self) -> np.dtype:
        """Features divided by the largest of the image, which keeps all in float16's range."""
        return np.dtype([("features", "<f2", (self.width,)), ("scale", "<f4"), ("check", "<u4")])

    def _path(self, view: int) -> Path:
        return self.folder / f"view-{view:04d}.npy"

    def fill(self, rows: np.ndarray, view: int) -> int:
        """Encode those rows of a view that are missing or damaged, and return how many."""
        if not len(self._missing(rows, view)):
            return 0
        path = self._path(view)
        with one_writer(path, talk=self.talk, doing="encoding"):
            missing = self._missing(rows, view, say=True)  # another process may have filled some
            if not len(missing):
                return 0
            size, free = len(missing) * self.record.itemsize, disk_usage(self.folder).free
            if size > free:
                got = f"got {in_bytes(free)}; free some, or set FOPRO_CACHE to another disk"
                needed = f"expected {in_bytes(size)} of free space for teacher features"
                raise WorkError(f"{self.folder}: {needed}, {got}")
            sys.stderr.write(self.notice if self.talk else "")
            self.notice = ""
            if self._open(view) is None:
                with atomic_path(path) as new:
                    # Zeros, which take no space until something is written over them.
                    np.lib.format.open_memmap(new, "w+", dtype=self.record, shape=(self.count,))
            chunks = np.split(missing, range(CHUNK, len(missing), CHUNK))
            bar = progress(chunks, total=len(chunks), label=f"teacher features, view {view}")
            with disk_errors(path), open(path, "rb+") as stream:
                offset = path.stat().st_size - self.count * self.record.itemsize
                for some in bar if self.talk else chunks:
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
                raise WorkError(f"{self._path(view)}: the kept features are gone; start again")
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
        records["check"] = self._checks(records, np.arange(len(rows)), rows, view)
        return records

    def _missing(self, rows: np.ndarray, view: int, *, say: bool = False) -> np.ndarray:
        """Return rows, each once, whose record is not there or is not as it was written."""
        rows, table = np.unique(rows), self._open(view)
        if table is None:
            if say and self._path(view).exists():
                sys.stderr.write(f"{self._path(view)}: damaged; its features are made again\n")
            return rows
        checks = table["check"][rows]
        wrong = self._checks(table, rows, rows, view) != checks
        if say and (damaged := int((wrong & (checks > 0)).sum())):
            sys.stderr.write(f"{self._path(view)}: {damaged} images damaged; made again\n")
        return rows[wrong]

    def _checks(
        self, records: np.ndarray, places: np.ndarray, rows: np.ndarray, view: int
    ) -> np.ndarray:
        """Checksum of each record but its last four bytes, which hold it, and of whose it is.

        0 is not filled.
        """
        content = np.asarray(records).view(np.uint8).reshape(len(records), -1)
        own = zlib.crc32(f"{self.folder.name} {view}".encode())
        pairs = zip(places.tolist(), rows.tolist(), strict=True)
        sums = [zlib.crc32(content[place, :-4].data, own ^ row) or 1 for place, row in pairs]
        return np.array(sums, dtype=np.uint32)

    def _open(self, view: int) -> np.ndarray | None:  # None: not there, or damaged
        try:
            table = open_array(self._path(view))
        except InputError:
            return None
        return table if table.dtype == self.record and table.shape == (self.count,) else None


@dataclass(eq=False)
class KeptFeatures:
    """What a run reads in place of passes of its teacher, and how often it could."""

    config: TrainConfig
    fabric: Fabric
    packed: Pack
    teacher: Teacher  # as loaded: what the features are kept under
    fast_teacher: Teacher
    adapt: Callable[[Tensor], Tensor] | None = None  # a prompt that is fitted to each image
    talk: bool = False
    quicken: Callable[[Any], Any] | None = None  # compiles the network, where that pays
    files: dict[str, FeatureFiles] = field(default_factory=dict)

    def batches(
        self,
        train: np.ndarray,
        *,
        epoch: int,
        prompt: FourierPrompt | None,
        strength: float | None,
        is_prompted: np.ndarray,
        counts: dict[str, int],
        batch_size: int,
    ) -> Iterator[Tensor | None]:
        """Yield the features ``(B, D)`` of each batch of an epoch; None where they are not kept.

        ``is_prompted`` says of each batch, of all processes, whether the teacher sees it behind the
        prompt; to ``counts`` are added the images whose features were ``needed``, and ``found``.
        """
        config, fabric = self.config, self.fabric
        how = config.model_dump(include={"sampler", "seed", "epochs"})
        order = draw_order(self.packed, train, epoch=epoch, views=config.teacher_views, **how)
        prompted_image = is_prompted.repeat(batch_size)
        counts["needed"] = counts.get("needed", 0) + len(prompted_image)
        sources: dict[bool, FeatureFiles] = {}
        for state in (False, True) if keeps_prompted(config) else (False,):
            chosen = np.flatnonzero(prompted_image == state)
            if not len(chosen):
                continue
            acting: Prompt = ("vptta" if self.adapt else prompt) if state else None
            files = sources[state] = self.files_of(acting, strength)
            rows, views = order.rows[chosen], order.views[chosen]
            with fabric.rank_zero_first(local=True):  # a machine's others find them
                filled = sum(files.fill(rows[views == v], v) for v in np.unique(views).tolist())
            counts["found"] = counts.get("found", 0) + len(chosen) - filled
        sharing: dict[str, Any] = {"rank": fabric.global_rank, "world_size": fabric.world_size}
        parts = batch_parts(len(order.rows), batch_size, drop_last=True, **sharing)
        cuda = fabric.device.type == "cuda"

        def read(item: tuple[slice, bool]) -> Tensor | None:
            if (files := sources.get(item[1])) is None:
                return None
            features = files.read(order.rows[item[0]], order.views[item[0]])
            return features.pin_memory() if cuda else features

        items = zip(parts, is_prompted.tolist(), strict=True)
        for features in read_ahead(items, read) if cuda else map(read, items):
            yield None if features is None else features.to(fabric.device, non_blocking=True)

    def files_of(self, prompt: Prompt, strength: float | None = None) -> FeatureFiles:
        """Find the files of the teacher behind a prompt, its random control, or behind none."""
        what = self._what(prompt, strength)
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:20]
        if key in self.files:
            return self.files[key]
        name = re.sub(r"[^\w.-]", "_", self.teacher.name)[:40]
        folder = cache_folder() / f"features-{name}-{key}"
        if not (folder / "what.json").exists():
            write_json(folder / "what.json", what)
        width, encode = self.teacher.feature_dim, partial(self._encode, prompt, strength)
        files = FeatureFiles(folder, len(self.packed), width, encode, talk=self.talk)
        views = min(self.config.teacher_views, self.config.epochs)
        size = in_bytes(views * len(self.packed) * files.record.itemsize)
        files.notice = f"fopro: {folder}: keeps teacher features, {views} views, up to {size}\n"
        return self.files.setdefault(key, files)

    def _what(self, prompt: Prompt, strength: float | None) -> dict[str, Any]:
        """Describe all that decides a feature: neither the training's seed nor the fold."""
        config, teacher = self.config, self.teacher
        what: dict[str, Any] = {"rules": RULES, "view_seed": VIEW_SEED, "count": len(self.packed)}
        what |= config.model_dump(include={"augment", "augment_mode", "precision"})
        what |= {} if (kind := config.teacher_precision) == "auto" else {"teacher_precision": kind}
        what |= {"compiled": True} if self.quicken else {}  # its last digits are others
        what |= {key: getattr(teacher, key) for key in ("input_size", "resize", "interpolation")}
        what |= self.identity
        if prompt == "vptta":
            names = {"prompt_steps", "prompt_learning_rate", "max_log_gain"}
            what["prompt"] = {"vptta": config.model_dump(include=names), "fitted": "32-true"}
            what["natural"] = hash_natural(config.natural) if config.natural else ""
        elif prompt is not None:
            settings = {k: v for k, v in prompt.settings.items() if k not in ("seed", "size")}
            what |= {"prompt": state_hash(prompt), "prompt_settings": settings}
            drawn = "per-view" if config.random_gains == "per-view" else config.seed
            if strength is not None:
                what |= {"random_gains": drawn, "strength": strength}
        return what

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Hash the images and the teacher: its weights, and what it makes of one image."""
        known = self.teacher.card.get("reference")
        known = known or reference_features(copy.deepcopy(self.teacher).cpu())
        images, weights = pixel_fingerprint(self.packed), state_hash(self.teacher)
        return {"images": images, "teacher": weights, "reference": known}

    def _encode(
        self, prompt: Prompt, strength: float | None, rows: np.ndarray, view: int
    ) -> Tensor:
        """Encode rows in one view as a batch of the training is."""
        config = self.config
        how = config.model_dump(include={"augment", "augment_mode"})
        how |= {"epoch": view, "views": config.teacher_views, "device": self.fabric.device}
        images, _ = next(batches(self.packed, rows, batch_size=len(rows), **how))
        if prompt == "vptta":  # outside of autocast, as `encode_batch` calls it
            assert self.adapt is not None
            images = self.adapt(images)
        with torch.inference_mode(), self.fabric.autocast():
            if isinstance(prompt, FourierPrompt):
                noise = generator_for(VIEW_SEED, view, purpose="prompt noise of a view")
                given: dict[str, Any] = {"noise": noise, "strength": strength, "view": view}
                given["share"] = Share(0, 1, 1)  # one noise for all images of a view
                images = prompted(images, prompt, config=config, **given)
            if self.quicken is None:
                return self.fast_teacher.encode(images)
            more = images[-1:].expand(CHUNK - len(images), -1, -1, -1)  # of one size, compiled once
            return self._quick.encode(torch.cat([images, more]))[: len(images)]

    @cached_property
    def _quick(self) -> Teacher:
        assert self.quicken is not None
        quick = copy.deepcopy(self.fast_teacher)  # that one takes batches of other sizes
        quick.body = self.quicken(quick.body)
        return quick


def keeps_prompted(config: TrainConfig) -> bool:
    """Tell whether features behind the prompt are kept: where they are sure to be read again."""
    again = config.prompt_every == 0 and config.teacher_views < config.epochs
    per_view = config.parts.prompt == "random" and config.random_gains == "per-view"
    if config.parts.prompt == "vptta" or per_view:  # the same in every run
        return True
    return config.parts.learns_prompt and (bool(config.prompt_file) or again)
