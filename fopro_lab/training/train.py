"""Training a student: begun once, resumed or returned, tested once."""

from __future__ import annotations

import copy
import gc
import itertools
import json
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributed import DistError, PrefixStore, Store
from torch.nn import Parameter
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    SequentialLR,
)

from fopro_lab.config import PromptConfig, StepConfig, TrainConfig
from fopro_lab.data import (
    Dataset,
    Pack,
    Split,
    batches,
    cycle,
    effective_counts,
    mix,
    paired_batches,
    prepare,
)
from fopro_lab.data.batches import Options, Pass, partners_of, training_progress
from fopro_lab.errors import InputError, WorkError
from fopro_lab.evaluation import Run, balanced_accuracy, groups_from, write_predictions
from fopro_lab.fourier import FourierPrompt, random_gain_like
from fopro_lab.fourier.gain import scale_spectrum
from fopro_lab.fourier.prompt import Share
from fopro_lab.fourier.rings import at_least_single
from fopro_lab.io import atomic_path, progress, sha256_file
from fopro_lab.models import Student, StudentOutput, Teacher, build_student, load_from
from fopro_lab.models.teacher import quick_teacher
from fopro_lab.training.losses import (
    DistillationLoss,
    TaskHead,
    balanced_softmax_loss,
    distillation_loss,
)
from fopro_lab.training.run_folder import (
    Mask,
    MaskRecord,
    TrainedRun,
    forget_previous,
    found_run,
    identity,
    load_checkpoint,
    locked,
    now,
    on_cpu,
    origin,
    record_of,
    save_checkpoint,
    write_manifest,
    write_masks,
    write_weights,
)
from fopro_lab.training.statistics import Reference, reference_of
from fopro_lab.training.train_prompt import (
    PROMPTING,
    active_objectives,
    draw_held_out,
    drift,
    exploration_place,
    explore,
    explores,
    prompted_share,
    shrink,
)


def synchronised(network: nn.Module, *, device: torch.device) -> nn.Module:
    """Let every batch norm of a network see the images of all processes.

    Args:
        network: Changed in place; its parameters and the names of its state stay.
        device: Where it will compute: PyTorch's own module refuses a CPU.

    Returns:
        The network; another one only if it is a batch norm itself.

    Example:
        >>> network = nn.Sequential(nn.BatchNorm1d(2))
        >>> type(synchronised(network, device=torch.device("cpu"))[0]).__name__
        'SharedBatchNorm'
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if isinstance(network, _BatchNorm):
        return SharedBatchNorm.like(network)
    for name, child in network.named_children():
        setattr(network, name, synchronised(child, device=device))
    return network


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the batch of all processes; in evaluation mode, or alone, the plain one.

    The processes' shares may be of different sizes, even empty.
    """

    @classmethod
    def like(cls, norm: _BatchNorm) -> SharedBatchNorm:
        """Take over a batch norm with its parameters and what it has seen."""
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine,
                   norm.track_running_stats)  # fmt: skip
        made._parameters, made._buffers, made.training = (
            norm._parameters, norm._buffers, norm.training
        )  # fmt: skip
        return made

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected 2 or more dimensions, got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``(B, C, ...)``, of which other processes hold more."""
        alone = not dist.is_initialized() or dist.get_world_size() == 1
        if alone or not (self.training or self.running_mean is None):
            return super().forward(input)
        self._check_input_dim(input)
        count, mean, variance = _whole_statistics(at_least_single(input.detach()))
        if count < 2:
            raise ValueError("batch norm: expected 2 or more values a channel, got 1")
        self._remember(count, mean, variance)
        normed = _Normalise.apply(input, count, mean, (variance + self.eps).rsqrt())
        if not self.affine:
            return normed.to(input)
        shape = (1, -1, *(1,) * (input.ndim - 2))
        weight, bias = (part.view(shape).to(normed) for part in (self.weight, self.bias))
        return (normed * weight + bias).to(input)  # rounded once, as by PyTorch's own

    @torch.no_grad()
    def _remember(self, count: int, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:  # then all batches count alike
            share = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        unbiased = variance * (count / (count - 1))
        self.running_var.lerp_(unbiased.to(self.running_var), share)


def _whole_statistics(values: Tensor) -> tuple[int, Tensor, Tensor]:
    """Count, mean and biased variance a channel over all processes, in one exchange.

    Squares are summed around each share's own mean: around zero, a large mean would eat the digits
    of the variance.
    """
    flat = values.transpose(0, 1).flatten(1)
    count = flat.shape[1]
    mean = flat.sum(dim=1) / max(count, 1)
    around = (flat - mean[:, None]).square().sum(dim=1)
    own = torch.cat([mean.new_tensor([count]), mean, around])
    shares = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(shares, own)
    counts, means, arounds = torch.stack(shares).split([1, len(mean), len(mean)], dim=1)
    total = counts.sum()
    whole = (counts * means).sum(dim=0) / total
    spread = arounds.sum(dim=0) + (counts * (means - whole).square()).sum(dim=0)
    return int(total), whole, spread / total


class _Normalise(torch.autograd.Function):
    """``(x - mean) * factor``, where both depend on the images of all processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, count: int, mean: Tensor, factor: Tensor) -> Tensor:
        shape = (1, -1, *(1,) * (values.ndim - 2))
        normed = (at_least_single(values) - mean.view(shape)) * factor.view(shape)
        ctx.save_for_backward(normed, factor)
        ctx.count, ctx.dtype = count, values.dtype
        return normed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Take off what moves the mean and the spread of the whole batch."""
        normed, factor = ctx.saved_tensors
        gradient = at_least_single(gradients[0])
        over = [0, *range(2, gradient.ndim)]
        sums = torch.stack([gradient.sum(dim=over), (gradient * normed).sum(dim=over)])
        dist.all_reduce(sums)
        shape = (1, -1, *(1,) * (gradient.ndim - 2))
        mean, along = (part.view(shape) for part in sums / ctx.count)
        moved = factor.view(shape) * (gradient - mean - normed * along)
        return moved.to(ctx.dtype), None, None, None


# What cuBLAS needs to give the same bits twice, in the form its manual states.
CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


class Buffers:
    """A network's buffers as they were: a batch that is not finite ruins its batch norms.

    Args:
        network: Whose buffers are copied.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> before = Buffers(norm)
        >>> _ = norm(torch.tensor([[0.0], [float("nan")]]))
        >>> before.keep(torch.tensor(False))
        >>> float(norm.running_mean)
        0.0
    """

    def __init__(self, network: nn.Module) -> None:
        self.pairs = [(buffer, buffer.clone()) for buffer in network.buffers()]

    @torch.no_grad()
    def keep(self, taken: Tensor) -> None:
        """Leave them where the step was taken, else make them what they were.

        Args:
            taken: Scalar of bool, where they are; never read, so that a GPU does not wait.
        """
        for buffer, before in self.pairs:
            buffer.copy_(torch.where(taken, buffer, before))


# What of a step was not finite, by its number.
BROKEN = ("", "gradient", "loss")


def broken_part(loss: Tensor, norm: Tensor) -> Tensor:
    """Tell what of a step is not finite, without reading it: a GPU would wait for who reads.

    Args:
        loss: Scalar.
        norm: Of the gradient, a scalar.

    Returns:
        A number of `BROKEN`, int64, where the loss is.

    Example:
        >>> BROKEN[broken_part(torch.tensor(1.0), torch.tensor(float("inf")))]
        'gradient'
    """
    broken = torch.where(torch.isfinite(norm), 0, 1)
    return torch.where(torch.isfinite(loss), broken, 2)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Let PyTorch use nothing but operations that give the same bits on the same device.

    Args:
        wanted: False changes nothing.

    Raises:
        WorkError: If an operation has no such form there.

    Example:
        >>> with deterministic(True):
        ...     torch.are_deterministic_algorithms_enabled()
        True
    """
    if not wanted:
        yield
        return
    was = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    os.environ.setdefault(*CUBLAS)  # read when cuBLAS is first used in this process
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        told = str(error).split(".")[0]
        raise WorkError(f"deterministic: {told}; use device=cpu or deterministic=false") from error
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warned)
        torch.backends.cudnn.benchmark = benchmark


def fitting_size(attempt: Callable[[int], object], *, below: int) -> int:
    """Find a batch size that the GPU's memory holds, by trying.

    Args:
        attempt: Does the work for some batch size, and runs out of memory or does not.
        below: The size that was too large.

    Returns:
        The first of its halves, quarters, ... that passes, 2 or more; 0 if none does.

    Example:
        >>> fitting_size(lambda size: None, below=32)
        16
    """
    size = below // 2
    while size >= 2:
        if torch.cuda.is_available():
            gc.collect()  # frames of the error may hold tensors in circles
            torch.cuda.empty_cache()
        try:
            attempt(size)
            return size
        except torch.OutOfMemoryError:
            pass  # what it held is let go of before the next, smaller one
        size //= 2
    return 0


STOPPED = "stopped; what was finished is kept, the same command goes on from there"
AGAIN = "what was finished is kept, start the same command again to go on"
ROUNDS = itertools.count(1)  # of this process; all of a launcher count alike
SEARCH_SECONDS = 2.0  # a launcher needs a moment to notice that a process has ended
GRACE_SECONDS = 5.0  # a GPU's wait for a lost process cannot be interrupted, only ended
# What gloo and NCCL say when the other end is gone; they have no errors of their own for it.
SIGNS = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "connect fail")


class Stopped(BaseException):
    """A signal asked this process to end; no ``except Exception`` may keep it."""


class Peers:
    """The processes of one run, and a notebook they share that outlives each of them.

    Args:
        store: The launcher's store.
        rank: This process, from 0.
        world_size: How many there are.
    """

    def __init__(self, store: Store, *, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self.common = store
        self.notes: Store = store
        self.leaving = False
        self._write(store, f"who/{rank}", [socket.gethostname(), os.getpid()])

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Let every process raise the first error of any, and one of them print it.

        Raises:
            InputError: If that was the first error.
            WorkError: If that was, or if a process has ended without a word, or was stopped.
        """
        # A script may train one run after another, each with notes of its own.
        self.notes = PrefixStore(f"round {next(ROUNDS)}", self.common)
        self.leaving = False
        with ExitStack() as stack:
            stack.enter_context(self._obeying_signals())
            try:
                try:
                    yield
                except BaseException:
                    self.leaving = True  # a second signal shall not cut off what is told
                    raise
            except (InputError, WorkError) as error:
                self._told(error)
                raise
            except (Stopped, KeyboardInterrupt) as error:
                raise self._why(stopped=True) from error
            except Exception as error:
                if not is_loss(error):
                    first = str(error).partition("\n")[0]
                    name = f"process {self.rank + 1} of {self.world_size}"
                    self._claim(WorkError(f"{name}: unexpected {type(error).__name__}: {first}"))
                    raise
                raise self._why(stopped=False) from error

    def wait_for(self, key: str) -> None:
        """Wait for `say` of another process, for hours if need be, or for its error."""
        while not self.notes.check([key]):
            if (error := self._claimed()) is not None:
                raise error
            time.sleep(0.05)

    def say(self, key: str) -> None:
        """Let go on who waits for a key."""
        self.notes.set(key, "1")

    def _why(self, *, stopped: bool) -> InputError | WorkError:
        """Find out why a process is gone or was stopped: an error that was claimed, or none."""
        until = time.monotonic() + SEARCH_SECONDS
        while True:
            if (error := self._claimed()) is not None:
                return error
            lost, elsewhere = self._lost()
            if lost or time.monotonic() > until:
                break
            time.sleep(0.05)
        if lost:
            names = " and ".join(str(rank + 1) for rank in lost)
            text = f"process {names} of {self.world_size} has ended; {AGAIN}"
        elif stopped:
            text = STOPPED
        else:
            where = "on another machine " if elsewhere else ""
            text = f"a process {where}of {self.world_size} has ended; {AGAIN}"
        return self._told(WorkError(text))

    def _told(self, error: InputError | WorkError) -> InputError | WorkError:
        """Print an error if nobody else did; at once, since a launcher soon ends who is left."""
        if not error.told and self._claim(error):
            sys.stderr.write(f"fopro: {error}\n")
            sys.stderr.flush()
        error.told = True
        return error

    def _claim(self, error: InputError | WorkError) -> bool:
        """Write an error down as the run's; False if another process was earlier."""
        try:
            self.notes.set(f"left/{self.rank}", "1")
            if self.notes.add("claims", 1) > 1:
                return False
            kind = "input" if isinstance(error, InputError) else "work"
            self._write(self.notes, "error", [kind, str(error)])
        except Exception:  # the store is gone with the process that kept it: better told twice
            pass
        return True

    def _claimed(self) -> InputError | WorkError | None:
        """Return the error that another process has claimed, if one has."""
        try:
            if not self.notes.check(["error"]):
                return None
            kind, text = json.loads(self.notes.get("error"))
        except Exception:
            return None
        error = (InputError if kind == "input" else WorkError)(text)
        error.told = True
        return error

    def _lost(self) -> tuple[list[int], bool]:
        """List who has ended here without a word, and tell whether there are other machines."""
        lost, elsewhere = [], False
        try:
            for rank in range(self.world_size):
                host, process = json.loads(self.common.get(f"who/{rank}"))
                if host != socket.gethostname():
                    elsewhere = True
                elif not _lives(process):
                    lost.append(rank)
            # Looked up afterwards: who went because of another's end wrote it down before.
            return [rank for rank in lost if not self.notes.check([f"left/{rank}"])], elsewhere
        except Exception:
            return [], elsewhere

    @staticmethod
    def _write(store: Store, key: str, content: list) -> None:
        store.set(key, json.dumps(content))

    @contextmanager
    def _obeying_signals(self) -> Iterator[None]:
        """Turn a launcher's or a user's signal into `Stopped`, once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python lets no other thread do it
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if not self.leaving:
                self.leaving = True
                raise Stopped

        kinds = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(kind, stop) for kind in kinds]
        try:
            with _ended_if_stuck(lambda: self._why(stopped=True)):
                yield
        finally:
            for kind, handler in zip(kinds, before, strict=True):
                signal.signal(kind, handler)


@contextmanager
def _ended_if_stuck(tell: Callable[[], object]) -> Iterator[None]:
    """End this process some seconds after a signal that it cannot hear.

    Python hears a signal between two of its own steps. Who waits for a GPU takes none, and the GPU
    may wait for a process that is gone.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    done = threading.Event()

    def watch() -> None:
        ends = (b"", bytes([signal.SIGTERM]), bytes([signal.SIGINT]))
        while (number := heard.recv(1)) not in ends:
            pass  # another signal, such as a scheduler's
        if number and not done.wait(GRACE_SECONDS):
            tell()
            os._exit(1)

    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        told.close()
        watcher.join()
        heard.close()


def is_loss(error: BaseException) -> bool:
    """Tell whether an error says that another process is gone.

    Example:
        >>> is_loss(RuntimeError("[pair.cc:538] Connection closed by peer [127.0.0.1]:1234"))
        True
        >>> is_loss(RuntimeError("shapes do not fit"))
        False
    """
    if isinstance(error, torch.OutOfMemoryError) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, DistError) or any(sign in str(error).lower() for sign in SIGNS)


def _lives(process: int) -> bool:
    """Tell whether a process of this machine runs; one that only waits to be counted does not."""
    try:
        # Behind the name, which may hold anything, stands the state.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        pass
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


Result = TypeVar("Result")


@dataclass(eq=False)
class Processes:
    """Who takes part in a run, and what they do together.

    Every process must call the same methods in the same order, `first` alone excepted.

    Attributes:
        rank: This process, from 0.
        world_size: How many there are.
        device: Of this process.
        peers: Who is heard when one fails; None for one process.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    peers: Peers | None = None
    waits: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def many(self) -> bool:
        """Whether there are others."""
        return self.world_size > 1

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Let all raise what one raises, and a lost process end the run; see `Peers.heard`."""
        with self.peers.heard() if self.peers is not None else nullcontext():
            yield

    def share(self, count: int) -> Share:
        """Say which stretch of some images is this process's.

        Example:
            >>> [Processes(rank, 2).share(5)[:2] for rank in (0, 1)]
            [(0, 2), (2, 5)]
        """
        start, stop = (count * rank // self.world_size for rank in (self.rank, self.rank + 1))
        return Share(start, stop, count)

    def first_does(self, work: Callable[[], Result]) -> Result:
        """Let the first process do something and all know its result.

        Args:
            work: What the others do not do; its result must be one that can be pickled.

        Returns:
            The first's result, on every process.

        Raises:
            InputError: On every process, if the first raised it.
            WorkError: As well.
        """
        if not self.many:
            return work()
        result, error = None, None
        if self.first:
            try:
                result = work()
            except (InputError, WorkError) as failed:
                error = failed
        kind = None if error is None else "input" if isinstance(error, InputError) else "work"
        kind, text, result = self._from_first((kind, str(error), result))
        if error is not None:
            raise error
        if kind is not None:
            raise (InputError if kind == "input" else WorkError)(text)
        return result

    def first_then_others(self, work: Callable[[], Result]) -> Result:
        """Let the first do something, for hours if need be, and then the others the same.

        All go on when all have done it: what they then do together has a limit of time.

        Args:
            work: What is quickly done again where the first has left its result, such as packing
                into a cache that all can read; with a cache of its own, a machine may take as
                long as the first.

        Returns:
            Of each process its own.
        """
        if self.peers is None:
            return work()
        self.waits += 1
        done = [f"wait {self.waits} of {rank}" for rank in range(self.world_size)]
        if not self.first:
            self.peers.wait_for(done[0])
        result = work()
        self.peers.say(done[self.rank])
        for key in done:
            self.peers.wait_for(key)
        return result

    def agree(self, facts: dict[str, Any]) -> None:
        """Refuse to go on where a process has other data or knobs than the first.

        Args:
            facts: What must be the same, each by its name.

        Raises:
            InputError: On the process that differs, and so on all.
        """
        if not self.many:
            return
        theirs = self._from_first(facts)
        for name, value in facts.items():
            if value != theirs[name]:
                raise InputError(
                    f"process {self.rank + 1} of {self.world_size}: its {name} is not that of the "
                    "first; each machine needs the same command, data and weights"
                )

    def mean(self, values: Tensor) -> Tensor:
        """Average a small tensor over the processes: the same bits on all, nothing is read."""
        if not self.many:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.world_size

    def joined(self, part: np.ndarray, count: int) -> np.ndarray:
        """Join the rows that the processes made of their stretches, exactly and in order.

        Args:
            part: ``(n, ...)``, of the stretch that `share` names.
            count: Rows of all.

        Returns:
            ``(count, ...)``, the same on every process.
        """
        if not self.many:
            return part
        lengths = [Processes(rank, self.world_size).share(count) for rank in range(self.world_size)]
        sizes = [length.stop - length.start for length in lengths]
        own = torch.zeros(max(sizes), *part.shape[1:], dtype=torch.from_numpy(part).dtype)
        own[: len(part)] = torch.from_numpy(part)  # gathered are tensors of one shape
        own = own.to(self.device)
        parts = [torch.empty_like(own) for _ in sizes]
        dist.all_gather(parts, own)
        rows = [rows[:size].cpu() for rows, size in zip(parts, sizes, strict=True)]
        return torch.cat(rows).numpy()

    @torch.no_grad()
    def alike(self, *networks: nn.Module | None) -> None:
        """Give every process the first's weights and buffers."""
        if not self.many:
            return
        for network in networks:
            for value in network.state_dict().values() if network is not None else ():
                sent = value.to(torch.uint8) if value.dtype == torch.bool else value
                sent = sent.clone(memory_format=torch.contiguous_format)
                dist.broadcast(sent, 0)
                value.copy_(sent)

    def _from_first(self, content: Any) -> Any:
        box = [content if self.first else None]
        dist.broadcast_object_list(box, 0)
        return box[0]


class Started(NamedTuple):
    """What a run begins with: the fabric, and who takes part."""

    fabric: Fabric
    processes: Processes


def launched() -> bool:
    """Tell whether torchrun has started several processes, of which this is one."""
    return dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1


def is_first() -> bool:
    """Tell whether this process may print results: there is one only, or it is the first."""
    return not launched() or os.environ["RANK"] == "0"


def start(config: TrainConfig) -> Started:
    """Choose the device, and join the other processes if torchrun has started several.

    Args:
        config: Device, precision, batch size.

    Returns:
        One process without a group, or one of a group.

    Raises:
        InputError: If there is no such GPU, or the batch cannot be shared out.
        WorkError: If the processes do not find each other.

    Example:
        >>> start(TrainConfig(device="cpu")).processes.world_size
        1
    """
    cuda = torch.cuda.is_available() and config.device != "cpu"
    how: dict[str, Any] = {
        "accelerator": "cuda" if cuda else "cpu",
        "precision": config.precision,
    }
    try:
        if config.device == "cuda" and not cuda:
            raise InputError(
                "device: expected a CUDA device on this machine, got none; use device=cpu"
            )
        if not launched():
            return Started(fabric := Fabric(devices=1, **how), Processes(device=fabric.device))
        here = _checked(config, cuda=cuda)
    except InputError as error:  # they are not joined yet, so that one a machine tells it
        error.told = launched() and os.environ["LOCAL_RANK"] != "0"
        raise
    world_size = int(os.environ["WORLD_SIZE"])
    fabric = Fabric(devices=here, num_nodes=world_size // here, strategy="ddp", **how)
    for name in ("lightning_fabric.utilities.distributed", "lightning_fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)  # a banner about the group
    rank = int(os.environ["RANK"])
    try:
        fabric.launch()
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False,
            timeout=timedelta(seconds=60), wait_for_workers=False,
        )  # fmt: skip
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        notes = dist.PrefixStore(f"fopro attempt {attempt}", store)
        peers = Peers(notes, rank=rank, world_size=world_size)
    except RuntimeError as error:
        told = str(error).partition("\n")[0]
        raise WorkError(f"the {world_size} processes did not find each other: {told}") from error
    return Started(fabric, Processes(rank, world_size, fabric.device, peers))


def _checked(config: TrainConfig, *, cuda: bool) -> int:
    """Refuse what several processes cannot share; return how many are on this machine."""
    world_size, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if config.batch_size % world_size:
        raise InputError(
            f"batch_size: expected a multiple of the {world_size} processes, got "
            f"{config.batch_size}; it is that of all processes together"
        )
    if config.batch_size < 2 * world_size and not config.sync_batch_norm:
        raise InputError(
            f"batch_size: expected {2 * world_size} or more, 2 a process, got {config.batch_size}; "
            "or use sync_batch_norm=true"
        )
    if world_size % here:
        raise InputError(f"torchrun: expected as many processes on every machine, got {here} here")
    if cuda and torch.cuda.device_count() < here:
        raise InputError(
            f"torchrun: expected up to {torch.cuda.device_count()} processes, one a GPU, got {here}"
        )
    return here


class Average(nn.Module):
    """An exponential moving average of a network's weights.

    After step ``t``, counted from 0, it is ``d * average + (1 - d) * network`` with
    ``d = min(decay, (1 + t) / (10 + t))``, and after the first the network itself: short trainings
    would else be judged by their first weights. The running means and variances of batch norms
    are averaged as the weights are, since those of the last network fit other weights; whole
    numbers, such as their counters, are copied.

    Args:
        network: Of which a copy is made, as ``module``.
        decay: Highest share of the past, above 0 and below 1.

    Example:
        >>> network = nn.Linear(1, 1, bias=False)
        >>> average = Average(network, 0.5)
        >>> average.update(network, torch.tensor(True))
        >>> torch.equal(average.module.weight, network.weight)
        True
    """

    steps: Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(network)
        self.decay = decay
        device = next(network.parameters()).device
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64, device=device))
        self.requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, taken: Tensor) -> None:
        """Move towards the network, by nothing where its step was not taken.

        Args:
            network: After the step.
            taken: Scalar of bool, where the network is; never read, so that a GPU does not wait.
        """
        steps = self.steps.double()
        past = ((1 + steps) / (10 + steps)).clamp(max=self.decay) * (steps > 0)
        share = torch.where(taken, 1 - past, 0.0)
        pairs = list(zip(self._tensors(self.module), self._tensors(network), strict=True))
        moved = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]
        mine, theirs = ([pair[place] for pair in moved] for place in (0, 1))
        change = torch._foreach_sub(theirs, mine)
        for part in change:
            part.mul_(share)
        torch._foreach_add_(mine, change)
        for own, other in pairs:
            if not own.is_floating_point():
                own.copy_(other)
        self.steps += taken

    @staticmethod
    def _tensors(network: nn.Module) -> list[Tensor]:
        return [*network.parameters(), *network.buffers()]


WARMUP_START = 0.01  # share of the learning rate in the very first step of a warm-up


def build_optimiser(parameters: Iterable[Parameter], config: StepConfig) -> Optimizer:
    """Build the optimiser that a config names.

    Args:
        parameters: The student's.
        config: Its name and numbers.

    Returns:
        Of PyTorch, fused, which on a CPU, too, is one kernel: Adam and SGD penalise the squared
        weights, AdamW shrinks the weights.

    Example:
        >>> build_optimiser([Parameter()], StepConfig(optimiser="sgd")).defaults["momentum"]
        0.9
    """
    shared: dict[str, Any] = {
        "lr": config.learning_rate,
        "weight_decay": config.weight_decay,
        "fused": True,
    }
    if config.optimiser != "sgd":
        return (Adam if config.optimiser == "adam" else AdamW)(parameters, **shared)
    optimiser = SGD(parameters, momentum=config.momentum, **shared)
    for parameter in optimiser.param_groups[0]["params"]:
        # A first step that is skipped would else leave memory there that nobody has written.
        if config.momentum:
            optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimiser


def skip_where(optimiser: Optimizer, broken: Tensor) -> None:
    """Let the next step of a fused optimiser move nothing where a flag on the device says so.

    It is how PyTorch's gradient scaler, too, skips a step without reading the flag.

    Args:
        optimiser: Of `build_optimiser`.
        broken: Scalar of bool.

    Example:
        >>> weight = Parameter(torch.ones(1))
        >>> optimiser = build_optimiser([weight], StepConfig())
        >>> weight.grad = torch.tensor([float("nan")])
        >>> skip_where(optimiser, torch.tensor(True))
        >>> optimiser.step()
        >>> float(weight.detach())
        1.0
    """
    vars(optimiser).update(grad_scale=None, found_inf=broken.float())


def build_schedule(
    optimiser: Optimizer, config: StepConfig, *, epochs: int, epoch_steps: int
) -> LRScheduler | None:
    """Build the schedule of the learning rate; it is asked after every step, not every epoch.

    So a warm-up can be shorter than an epoch, and a training of few epochs has no stairs. The
    rate depends on the number of steps alone: a step that is skipped counts.

    Args:
        optimiser: Whose rate is set.
        config: Schedule, warm-up, milestones; these are in epochs.
        epochs: Of the whole training, as planned: an early stop does not compress the schedule.
        epoch_steps: Steps of an epoch.

    Returns:
        The schedule, or None where the rate never changes.

    Example:
        >>> optimiser = SGD([Parameter()], lr=1.0)
        >>> config = StepConfig(schedule="multi-step", lr_milestones=(1,))
        >>> schedule = build_schedule(optimiser, config, epochs=2, epoch_steps=2)
        >>> rates = []
        >>> for _ in range(4):
        ...     optimiser.step()
        ...     rates += schedule.get_last_lr()
        ...     schedule.step()
        >>> rates
        [1.0, 1.0, 0.1, 0.1]
    """
    warmup = math.ceil(config.lr_warmup * epoch_steps)
    if config.schedule == "constant" and not warmup:
        return None
    after = _after_warmup(optimiser, config, warmup, epochs * epoch_steps, epoch_steps)
    if not warmup:
        return after
    rising = LinearLR(optimiser, start_factor=WARMUP_START, total_iters=warmup)
    return SequentialLR(optimiser, [rising, after], milestones=[warmup])


def _after_warmup(
    optimiser: Optimizer, config: StepConfig, warmup: int, steps: int, epoch_steps: int
) -> LRScheduler:
    if config.schedule == "cosine":
        # The last step, not one past it, has the floor's rate; a single step has the full one.
        left, floor = max(1, steps - 1 - warmup), config.lr_floor * config.learning_rate
        return CosineAnnealingLR(optimiser, T_max=left, eta_min=floor)
    if config.schedule == "multi-step":
        places = [epoch * epoch_steps - warmup for epoch in config.lr_milestones]
        return MultiStepLR(optimiser, places, gamma=config.lr_factor)
    return LambdaLR(optimiser, lambda _: 1.0)


DISTILLING = ("ekd", "fopro", "random")


@dataclass(eq=False)
class Actors:
    """The networks of one run, and what the teacher expects; None where the method has none."""

    student: Student
    teacher: Teacher | None
    prompt: FourierPrompt | None
    head: TaskHead | None
    reference: Reference | None = None

    def state(self) -> dict[str, dict[str, Tensor]]:
        """State dicts of all that is trained."""
        return {name: part.state_dict() for name, part in self._trained().items()}

    def load_state(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Put back what `state` gave."""
        for name, part in self._trained().items():
            part.load_state_dict(state[name])

    def _trained(self) -> dict[str, nn.Module]:
        parts = {"student": self.student, "prompt": self.prompt, "head": self.head}
        return {name: part for name, part in parts.items() if part is not None}


def build_actors(config: TrainConfig, *, class_counts: np.ndarray, device: torch.device) -> Actors:
    """Build what the method of ``config`` needs, on the device.

    Args:
        config: Of the run.
        class_counts: ``(K,)``, training images a class.
        device: Where to compute.

    Returns:
        The actors. Baselines come without teacher, EKD without prompt.

    Raises:
        InputError: If the teacher's weights or a prompt's file are missing or do not fit, or the
            teacher lacks what an objective needs.

    Example:
        >>> config = TrainConfig(method="ekd")
        >>> actors = build_actors(config, class_counts=np.ones(8), device=torch.device("cpu"))
        >>> actors.prompt is None
        True
    """
    classes = len(class_counts)
    teacher = load_from(config).to(device) if config.method in DISTILLING else None
    student = build_student(
        config.student,
        classes=classes,
        teacher_dim=teacher.feature_dim if teacher is not None else 0,
        seed=config.seed,
        weights=config.student_weights,
    ).to(device)
    prompt, head, reference = None, None, None
    if teacher is not None and config.method in PROMPTING:
        prompt = build_prompt(config, size=config.image_size, seed=config.seed).to(device)
        if not config.prompt_file:
            active = active_objectives(config.objectives, teacher)  # told before an epoch's work
            head = TaskHead(teacher.feature_dim, classes=classes, seed=config.seed).to(device)
            if "statistics" in active:
                reference = reference_of(teacher, natural=config.natural, size=config.image_size)
                teacher.card["statistics"] = reference.source
    return Actors(student, teacher, prompt, head, reference)


def build_prompt(config: PromptConfig, *, size: int, seed: int) -> FourierPrompt:
    """Build the prompt that a config describes, at the identity, or read it from its file.

    Args:
        config: Its form, resolution and bound; a `TrainConfig` may name a file instead.
        size: Side of the images it will see, pixels.
        seed: Of a network's weights.

    Raises:
        InputError: If the file is missing, no prompt, or one of another number of channels.

    Example:
        >>> build_prompt(PromptConfig(prompt_form="ring"), size=32, seed=0).form
        'ring'
    """
    path = config.prompt_file if isinstance(config, TrainConfig) else ""
    if path:
        prompt = FourierPrompt.load(Path(path).expanduser()).requires_grad_(False)
        if prompt.channels not in (1, 3):
            raise InputError(
                f"prompt_file: expected a prompt of 1 or 3 channels, got {prompt.channels}"
            )
        return prompt
    return FourierPrompt(
        config.prompt_form,
        size=size,
        max_log_gain=config.max_log_gain,
        rows=config.prompt_rows,
        rings=config.prompt_rings,
        waves=config.prompt_waves,
        noise=config.prompt_noise,
        seed=seed,
    )


@torch.no_grad()
def prompted(
    images: Tensor,
    prompt: FourierPrompt,
    *,
    generator: torch.Generator,
    places: torch.Generator | None = None,
    per_image: bool = False,
    share: Share | None = None,
) -> Tensor:
    """Put the prompt, or its random control, before the teacher; no gradient flows.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        prompt: The learned one.
        generator: Source of the prompt's noise.
        places: Source of the places that its gains are moved to; None leaves them. Seeded alike
            for every batch, all of them get the same places.
        per_image: Draw places for each image.
        share: Stretch of a batch that the images are; None is all of it.

    Returns:
        ``(B, 3, H, W)``, not clipped.

    Example:
        >>> prompt = FourierPrompt("shared", size=8)
        >>> noise, places = (torch.Generator().manual_seed(seed) for seed in (0, 1))
        >>> prompted(torch.rand(2, 3, 8, 8), prompt, generator=noise, places=places).shape
        torch.Size([2, 3, 8, 8])
    """
    gain = prompt.gain(images, generator, share=share)
    if places is not None:
        size = (images.shape[2], images.shape[3])
        gain = random_gain_like(prompt, gain, places, size=size, per_image=per_image, share=share)
    return scale_spectrum(images, gain)


def places_of(config: TrainConfig, noise: torch.Generator) -> torch.Generator:
    """Say where the control moves gains to: one arrangement a run, or ever new ones.

    Args:
        config: Of a run of method ``random``.
        noise: Source of ever new places.

    Returns:
        A generator; for one arrangement newly seeded, so that each batch draws the same.
    """
    if config.random_gains == "per-image":
        return noise
    return generator_for(config.seed, purpose="places of the control")


def generator_for(*numbers: int, purpose: str) -> torch.Generator:
    """Make a generator that depends on some numbers and a purpose, and on nothing else.

    Drawing each epoch's randomness from its own seed is what makes a resumed run equal to one
    that was never stopped.

    Args:
        numbers: Such as seed and epoch.
        purpose: Such as ``"prompt"``; two purposes never share their numbers.

    Example:
        >>> one, two = (generator_for(0, 1, purpose="prompt") for _ in range(2))
        >>> torch.equal(torch.rand(3, generator=one), torch.rand(3, generator=two))
        True
    """
    entropy: list[Any] = [*numbers, *purpose.encode()]
    seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True, eq=False)
class Stage:
    """What an epoch works with.

    Attributes:
        config: Every knob.
        fabric: Device and precision.
        actors: Networks, on the device.
        student: The student as the fabric wraps it.
        optimiser: As the fabric wraps it.
        packed: Images.
        rows: Training rows.
        class_counts: ``(K,)``, training images, float, on the device.
        val_rows: Validation rows, which check a prompt; None checks none.
        schedule: Of the learning rate; None where that never changes.
        average: Of the student's weights; None keeps none.
        encoder: The teacher in the form that gives the student's targets, fast; None without one.
        processes: Who shares the batches.
    """

    config: TrainConfig
    fabric: Fabric
    actors: Actors
    student: Any
    optimiser: Any
    packed: Pack
    rows: np.ndarray
    class_counts: Tensor
    val_rows: np.ndarray | None = None
    schedule: LRScheduler | None = None
    average: Average | None = None
    encoder: Teacher | None = None
    processes: Processes = field(default_factory=Processes)

    @property
    def batch_size(self) -> int:
        """Images a batch, of all processes: no more than there are, and as many for each."""
        size = min(self.config.batch_size, len(self.rows))
        return size - size % self.processes.world_size

    @property
    def batches(self) -> int:
        """Whole batches of an epoch."""
        return len(self.rows) // self.batch_size

    @property
    def judged(self) -> Student:
        """The student that is validated, kept and tested: the average, where there is one."""
        if self.average is None:
            return self.actors.student
        return cast(Student, self.average.module)

    def state(self) -> dict[str, Any]:
        """State of all that a step changes."""
        parts = {"schedule": self.schedule, "average": self.average}
        return {
            "actors": self.actors.state(),
            "optimiser": self.optimiser.state_dict(),
            **{name: part.state_dict() for name, part in parts.items() if part is not None},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave."""
        self.actors.load_state(state["actors"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def build_stage(
    config: TrainConfig, packed: Pack, split: Split, *, started: Started | None = None
) -> Stage:
    """Build networks, optimiser and what goes with them, on the device.

    Args:
        config: Of the run.
        packed: The images.
        split: Which train, and which validate.
        started: Device and processes; None chooses them now.

    Returns:
        The stage before its first epoch.

    Raises:
        InputError: If there are fewer images than processes, or as `start` and `build_actors`.
    """
    fabric, processes = started or start(config)
    if len(split.train) < processes.world_size:
        raise InputError(
            f"training: {len(split.train)} images cannot be shared by {processes.world_size} "
            "processes; start fewer"
        )
    if not config.sync_batch_norm and len(split.train) < 2 * processes.world_size:
        raise InputError(
            f"training: {len(split.train)} images give {processes.world_size} processes less "
            "than 2 each; start fewer, or use sync_batch_norm=true"
        )
    counts = split.class_counts(packed.dataset)
    actors = build_actors(config, class_counts=counts, device=fabric.device)
    return set_stage(
        config,
        fabric=fabric,
        actors=actors,
        packed=packed,
        rows=split.train,
        class_counts=counts,
        val_rows=split.val,
        processes=processes,
    )


def set_stage(
    config: TrainConfig,
    *,
    fabric: Fabric,
    actors: Actors,
    packed: Pack,
    rows: np.ndarray,
    class_counts: np.ndarray,
    val_rows: np.ndarray | None = None,
    processes: Processes | None = None,
) -> Stage:
    """Set actors on a stage: with what moves the student, and a fast form of the teacher.

    Args:
        config: Of the run; what made the actors is not read again.
        fabric: Device and precision.
        actors: On the device.
        packed: The images.
        rows: Which train.
        class_counts: ``(K,)``, of these.
        val_rows: Which check a prompt.
        processes: Who shares the batches; None is this process alone.

    Returns:
        The stage before its first epoch.
    """
    processes = processes or Processes()
    if config.sync_batch_norm and processes.many:
        synchronised(actors.student, device=fabric.device)
    plain = build_optimiser(actors.student.parameters(), config)
    batches = max(1, len(rows) // config.batch_size)
    schedule = build_schedule(
        plain, config, epochs=config.epochs, epoch_steps=-(-batches // config.accumulate)
    )
    student, optimiser = fabric.setup(actors.student, plain)
    return Stage(
        config,
        fabric,
        actors,
        student,
        optimiser,
        packed,
        rows,
        torch.as_tensor(class_counts, dtype=torch.float32, device=fabric.device),
        val_rows=val_rows,
        schedule=schedule,
        average=Average(actors.student, config.ema_decay) if config.ema_decay else None,
        encoder=_encoder(config, actors.teacher, tell=processes.first),
        processes=processes,
    )


def _encoder(config: TrainConfig, teacher: Teacher | None, *, tell: bool) -> Teacher | None:
    if teacher is None:
        return None
    dtype = torch.bfloat16 if config.precision == "bf16-mixed" else torch.float32
    return quick_teacher(
        teacher,
        fold=config.fold_teacher,
        dtype=dtype,
        compiled=config.compile_teacher,
        tell=lambda line: sys.stderr.write(f"{line}\n") if tell else None,
    )


@dataclass
class Position:
    """Where an epoch stands between two of its steps, its exploration behind it.

    Order and augmentation of its images follow from seed, epoch and ``batch`` alone.

    Attributes:
        chance: Says which batches are prompted.
        noise: Source of the prompt's noise.
        batch: The next one, from 0.
        counted: Batches whose losses are summed, where these are; None before the first step.
        sums: ``(L,)``, the losses, on their device; likewise.
        unread: Of steps of which nobody has looked whether they were taken: first batch, number
            of batches, and a number of `fopro_lab.training.train.BROKEN`.
        seconds: Spent on this epoch up to the last checkpoint.
    """

    chance: torch.Generator
    noise: torch.Generator
    batch: int = 0
    counted: Tensor | None = None
    sums: Tensor | None = None
    unread: list[tuple[int, int, Tensor]] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def begin(cls, config: TrainConfig, epoch: int) -> Position:
        """Stand before the first batch of an epoch, counted from 0."""
        return cls(
            generator_for(config.seed, epoch, purpose="which batches"),
            generator_for(config.seed, epoch, purpose="prompt noise"),
        )

    def advance(self, batches: int, losses: Tensor, broken: Tensor) -> None:
        """Go on behind a step; the losses of a broken one are left out of the sums.

        Args:
            batches: Of the step.
            losses: ``(L,)``, summed over them.
            broken: A number of `fopro_lab.training.train.BROKEN`.
        """
        if self.sums is None or self.counted is None:
            self.sums, self.counted = torch.zeros_like(losses), torch.zeros_like(broken)
        self.unread.append((self.batch, batches, broken))
        self.batch += batches
        self.sums = self.sums + torch.where(broken == 0, losses, 0.0)
        self.counted = self.counted + (broken == 0) * batches

    def broken_steps(self, *, unread: int) -> Iterator[tuple[int, int, str]]:
        """Look at the steps behind, and yield those that were not taken.

        Args:
            unread: So many of the last ones are not looked at yet. A GPU has not done them, and
                would stand still until who waits for it has told it what comes next.

        Returns:
            First batch, number of batches, and what was not finite.
        """
        while len(self.unread) > unread:
            first, batches, broken = self.unread.pop(0)
            if what := BROKEN[int(broken)]:
                yield first, batches, what

    def state(self) -> dict[str, Any]:
        """Tensors and numbers for a checkpoint."""
        generators = {name: getattr(self, name).get_state() for name in ("chance", "noise")}
        return {**vars(self), **generators}

    @classmethod
    def from_state(cls, state: dict[str, Any], *, device: torch.device) -> Position:
        """Stand where `state` was taken.

        Args:
            state: Of a checkpoint, on the CPU.
            device: Where the losses are summed.
        """
        generators = {}
        for name in ("chance", "noise"):
            generators[name] = torch.Generator()
            generators[name].set_state(state[name])
        sums = {
            name: state[name] if state[name] is None else state[name].to(device)
            for name in ("counted", "sums")
        }
        return cls(**{**state, **generators, **sums})


class SkippedStep(NamedTuple):
    """A step that was not taken.

    Attributes:
        epoch: Counted from 0.
        batch: The first of its batches, from 0.
        broken: What was not finite, ``loss`` or ``gradient``.
        rows: Of its images.
    """

    epoch: int
    batch: int
    broken: str
    rows: np.ndarray


@dataclass
class Standing:
    """Where a run stands after its last finished epoch, and how far it is in the next."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -1.0
    best_student: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    exploration: list[dict[str, float]] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    started: str = field(default_factory=now)
    position: Position | None = None

    def ended(self, config: TrainConfig) -> bool:
        """Tell whether all epochs are done, or the best one is too long ago."""
        waited = self.epoch - self.best_epoch
        return self.epoch >= config.epochs or 0 < config.patience <= waited

    def skipped_steps(self) -> int:
        """Count the steps of this epoch that were not taken."""
        return len({row["batch"] for row in self.skipped if row["epoch"] == self.epoch + 1})

    def state(self) -> dict[str, Any]:
        """Tensors, numbers and texts for a checkpoint."""
        position = self.position.state() if self.position is not None else None
        return {**vars(self), "position": position}

    @classmethod
    def from_state(cls, state: dict[str, Any], *, device: torch.device) -> Standing:
        """Stand where `state` was taken; ``device`` as of `Position.from_state`."""
        within = state.get("position")
        position = Position.from_state(within, device=device) if within is not None else None
        return cls(**{**state, "position": position})


Item = TypeVar("Item")

LINE_SECONDS = 15.0  # a log gets at most one line in this time, beside those that end an epoch


@dataclass
class Teller:
    """Says on standard error how far a run is.

    Attributes:
        config: Of the run.
        verbose: False says nothing.
        begun: When it began, as of ``time.monotonic``.
        told: When the last line was written; none yet is long ago.
        ended: When the last line that ends an epoch was written.

    Example:
        >>> list(Teller(TrainConfig(), verbose=False).watch("abc", epoch=0, total=3, what="batch"))
        ['a', 'b', 'c']
    """

    config: TrainConfig
    verbose: bool = True
    begun: float = field(default_factory=time.monotonic)
    told: float = -math.inf
    ended: float = -math.inf

    def watch(
        self, items: Iterable[Item], *, epoch: int, total: int, what: str, done: int = 0
    ) -> Iterator[Item]:
        """Yield some work of an epoch and say how far it is.

        Args:
            items: The work.
            epoch: Counted from 0.
            total: Number of items, with those that were done before.
            what: What an item is, such as ``"batch"``.
            done: Items that were done before.
        """
        if self.verbose and sys.stderr.isatty():
            label = f"{self._run(epoch)}, {what}"
            yield from progress(items, total=total - done, label=label)
            return
        for number, item in enumerate(items, start=done + 1):
            yield item
            if self.verbose and number < total and self._quiet() >= LINE_SECONDS:
                self._write(f"{self._run(epoch)}, {what} {number} of {total}")

    def end_epoch(self, epoch: int, text: str, *, last: bool) -> None:
        """Say what an epoch came to: a short one is passed over, unless it is first or last.

        Args:
            epoch: Counted from 0.
            text: What it came to.
            last: Whether it ends the run.
        """
        long = time.monotonic() - self.ended > LINE_SECONDS
        if self.verbose and (last or long or sys.stderr.isatty()):
            self.ended = time.monotonic()
            self._write(f"{self._run(epoch)}, {text}")

    def _run(self, epoch: int) -> str:
        config = self.config
        return f"{config.method} seed {config.seed}: epoch {epoch + 1} of {config.epochs}"

    def _quiet(self) -> float:
        return time.monotonic() - max(self.begun, self.told)

    def _write(self, line: str) -> None:
        self.told = time.monotonic()
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


@dataclass
class Saver:
    """Writes tables and checkpoints of one run; of several processes, the first does.

    An exploration is never saved half done: it is repeated, to the same bits, from the state that
    it started from, and what comes after it can be saved at once.

    Attributes:
        stage: What the run works with.
        standing: Where it stands; kept up to date by who trains.
        folder: The run's.
        saved: When it was saved last, as of ``time.monotonic``.
        begun: When this epoch began, as of ``time.perf_counter``; an interruption does not count.
    """

    stage: Stage
    standing: Standing
    folder: Path
    saved: float = field(default_factory=time.monotonic)
    begun: float = field(default_factory=time.perf_counter)

    def begin_epoch(self) -> None:
        """Start the clock of an epoch, or let it go on after a stop."""
        position = self.standing.position
        self.begun = time.perf_counter() - (position.seconds if position is not None else 0.0)

    def seconds(self) -> float:
        """Time spent on this epoch."""
        return time.perf_counter() - self.begun

    def within_epoch(self, position: Position) -> None:
        """Save between two steps, if the last time is long enough ago."""
        minutes = self.stage.config.checkpoint_minutes
        if not self.stage.processes.first:
            return  # it alone looks at the clock; the others wait for its next step
        if minutes and time.monotonic() - self.saved >= 60 * minutes:
            position.seconds = self.seconds()
            self.standing.position = position
            self._save()

    def skip(self, step: SkippedStep) -> None:
        """Write down the images of a step that was not taken; too many of them end the run.

        Raises:
            WorkError: Past ``max_skipped``; the last checkpoint is as it was.
        """
        table, config = self.stage.packed.dataset.table, self.stage.config
        for image in table["image"].iloc[step.rows]:
            row = {"epoch": step.epoch + 1, "batch": step.batch + 1, "broken": step.broken}
            self.standing.skipped.append({**row, "image": str(image)})
        self.stage.processes.first_does(self._write_tables)
        steps = self.standing.skipped_steps()
        if steps > config.max_skipped:
            raise WorkError(
                f"training: {steps} steps of epoch {step.epoch + 1} were not finite, more than "
                f"max_skipped = {config.max_skipped}; {self.folder / 'skipped.csv'} names their "
                f"images; lower learning_rate (now {config.learning_rate:g})"
            )

    def after_epoch(self) -> None:
        """Write the tables, then the checkpoint, since it alone says the epoch is done."""
        self.standing.position = None
        config, first_does = self.stage.config, self.stage.processes.first_does
        first_does(self._write_tables)
        if self.standing.epoch % config.checkpoint_epochs == 0 or self.standing.ended(config):
            first_does(self._save)

    def _write_tables(self) -> None:
        for name in ("history", "exploration", "skipped"):
            if rows := getattr(self.standing, name):
                with atomic_path(self.folder / f"{name}.csv") as temporary:
                    pd.DataFrame(rows).to_csv(temporary, index=False)
        if self.standing.masks:
            write_masks(self.folder, self.standing.masks)

    def _save(self) -> None:
        teacher = self.stage.actors.teacher
        state = {
            **self.stage.state(),
            "standing": self.standing.state(),
            "teacher": teacher.card.get("sha256", "") if teacher is not None else "",
        }
        save_checkpoint(self.folder, state)
        self.saved = time.monotonic()


@torch.inference_mode()
def predict(
    student: Student,
    pack: Pack,
    rows: np.ndarray,
    *,
    size: int = 0,
    batch_size: int = 128,
    processes: Processes | None = None,
) -> np.ndarray:
    """Classify some images, unaugmented and unprompted.

    Args:
        student: Left in evaluation mode.
        pack: The images.
        rows: Row numbers.
        size: Side of the image the student sees, pixels; 0 is the pack's.
        batch_size: Images a pass.
        processes: Who shares the rows, all with the same student; None is this process alone.

    Returns:
        Logits ``(N, K)``, float32, in the order of ``rows``.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> from fopro_lab.models import build_student
        >>> packed = pack(open_dataset("phantom", images=24), 16, progress=False)
        >>> predict(build_student("small", classes=8), packed, np.arange(5)).shape
        (5, 8)
    """
    student.eval()
    device = student.mean.device
    processes = processes or Processes()
    share = processes.share(len(rows))
    own = rows[share.start : share.stop]
    logits = [torch.empty(0, student.classifier.out_features)]
    if len(own) or not processes.many:  # fewer rows than processes leave some without
        passes = batches(pack, own, batch_size=batch_size, device=device)
        logits += [_classified(student, shrink(x, size)) for x, _ in passes]
    return processes.joined(torch.cat(logits).numpy(), len(rows))


def _classified(student: Student, images: Tensor) -> Tensor:
    """Classify a batch, in halves where a GPU's memory is too small for all of it."""
    try:
        return student.classify(images).float().cpu()
    except torch.OutOfMemoryError:
        if len(images) == 1:
            raise WorkError(
                f"out of GPU memory with one image of {images.shape[-1]} px; lower image_size"
            ) from None
    halves = images.split(-(-len(images) // 2))  # out of the handler, which holds memory
    return torch.cat([_classified(student, half) for half in halves])


def prediction_table(
    student: Student,
    pack: Pack,
    split: Split,
    *,
    size: int = 0,
    processes: Processes | None = None,
) -> pd.DataFrame:
    """Classify validation and test images into the table that every verdict reads.

    Args:
        student: The best one, by validation.
        pack: The images.
        split: Which are held out.
        size: Side of the image the student sees, pixels; 0 is the pack's.
        processes: As of `predict`.

    Returns:
        See `fopro_lab.evaluation.predictions`.

    Example:
        >>> from fopro_lab.data import make_split, open_dataset, pack
        >>> from fopro_lab.models import build_student
        >>> dataset = open_dataset("phantom", images=120)
        >>> packed = pack(dataset, 16, progress=False)
        >>> table = prediction_table(
        ...     build_student("small", classes=8), packed, make_split(dataset))
        >>> sorted(table["split"].unique())
        ['test', 'val']
    """
    parts = []
    for name, rows in (("val", split.val), ("test", split.test)):
        part = pack.dataset.table.iloc[rows][["image", "group", "source", "label"]].copy()
        part.insert(3, "split", name)
        logits = predict(student, pack, rows, size=size, processes=processes)
        columns = [f"logit_{class_name}" for class_name in pack.dataset.class_names]
        parts.append(part.join(pd.DataFrame(logits, columns=columns, index=part.index)))
    return pd.concat(parts, ignore_index=True)


class Step:
    """A step of the optimiser, out of one batch or several whose gradients are added.

    Gradients are those of the mean over all its batches. Batch norms see each batch by itself, so
    a step of two batches of 16 is not to the last digit one of a batch of 32.

    Args:
        stage: What is moved.
        parts: Batches of this step, 1 or more.
    """

    def __init__(self, stage: Stage, parts: int) -> None:
        self.stage, self.parts = stage, parts
        self.before = Buffers(stage.actors.student)
        self.values: Tensor | None = None  # stays where it is: a GPU would wait for who reads it
        stage.optimiser.zero_grad()

    def add(self, losses: tuple[Tensor, ...]) -> None:
        """Add a batch's gradient and its losses, the total first."""
        self.stage.fabric.backward(losses[0] / self.parts if self.parts > 1 else losses[0])
        values = torch.stack([loss.detach() for loss in losses])
        self.values = values if self.values is None else self.values + values

    def take(self) -> tuple[Tensor, Tensor]:
        """Move the student, its learning rate and its average; or only the rate.

        Nothing is read: the optimiser's own kernel is told on the device to move nothing.

        Returns:
            ``(L,)``, the losses summed over the batches, and a number of
            `fopro_lab.training.train.BROKEN`. Unless that is 0, weights, batch norms, moments
            and average are as they were before the step.
        """
        stage = self.stage
        assert self.values is not None
        self.values = stage.processes.mean(self.values)  # so that all decide and report alike
        norm = stage.fabric.clip_gradients(
            stage.student,
            stage.optimiser,
            max_norm=stage.config.clip_norm,
            error_if_nonfinite=False,  # True would read the norm, and a GPU wait for that
        )
        assert norm is not None
        broken = broken_part(self.values[0], norm)
        taken = broken == 0
        skip_where(stage.optimiser.optimizer, ~taken)
        stage.optimiser.step()
        self.before.keep(taken)
        if stage.schedule is not None:
            stage.schedule.step()
        if stage.average is not None:
            stage.average.update(stage.actors.student, taken)
        return self.values, broken


def batch_losses(
    stage: Stage, images: Tensor, labels: Tensor, noise: torch.Generator | None
) -> tuple[Tensor, ...] | DistillationLoss:
    """Compute the losses of one batch, the total first.

    Args:
        stage: Whose ``class_counts`` are those that the epoch draws.
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)``, or ``(B, K)``, shares of mixed images.
        noise: Source of the prompt's noise; None for an unprompted batch.

    Returns:
        Scalars: the total, and for a distilled student its three parts.
    """
    config, actors = stage.config, stage.actors
    output: StudentOutput = stage.student(shrink(images, config.student_size))
    if config.method == "ce":
        return (F.cross_entropy(output.logits, labels, label_smoothing=config.label_smoothing),)
    told: dict[str, Any] = {
        "class_counts": stage.class_counts,
        "label_smoothing": config.label_smoothing,
    }
    if config.method == "bsm":
        return (balanced_softmax_loss(output.logits, labels, **told),)
    assert stage.encoder is not None
    with torch.inference_mode(), stage.fabric.autocast():
        if actors.prompt is not None and noise is not None:
            images = prompted(
                images,
                actors.prompt,
                generator=noise,
                places=places_of(config, noise) if config.method == "random" else None,
                per_image=config.random_gains == "per-image",
                share=stage.processes.share(len(images) * stage.processes.world_size),
            )
        features = stage.encoder.encode(images)
    features = features.clone()  # what inference mode made cannot take part in a gradient
    weight = config.distill_weight
    return distillation_loss(output, features, labels=labels, weight=weight, **told)


def explore_epoch(
    stage: Stage, epoch: int, *, teller: Teller | None = None, record: MaskRecord | None = None
) -> pd.DataFrame:
    """Take the prompt steps that stand before an epoch.

    They draw each image equally often, whatever the sampler: the balanced softmax of the task
    corrects for the class sizes, and prompts of two samplers stay comparable.

    Args:
        stage: With a prompt among its actors.
        epoch: Counted from 0; decides batches and noise.
        teller: Told of every prompt step; None is silence.
        record: As of `explore`.

    Returns:
        The history of `explore`, with a column ``epoch``.
    """
    config, actors = stage.config, stage.actors
    assert actors.prompt is not None and actors.teacher is not None
    endless = cycle(
        stage.packed,
        stage.rows,
        batch_size=config.batch_size,
        augment=config.augment,
        augment_mode=config.augment_mode,
        seed=int(generator_for(config.seed, epoch, purpose="explore order").initial_seed() % 2**31),
        device=stage.fabric.device,
    )
    if teller is not None:
        steps = config.prompt_steps
        endless = teller.watch(endless, epoch=epoch, total=steps, what="prompt step")
    # Without a cache: it would keep the task head's weights as they were before the first step.
    device, half = stage.fabric.device.type, config.precision == "bf16-mixed"
    with torch.autocast(device, torch.bfloat16, enabled=half, cache_enabled=False):
        history = explore(
            actors.prompt,
            actors.teacher,
            endless,
            objectives=config.objectives,
            steps=config.prompt_steps,
            learning_rate=config.prompt_learning_rate,
            max_drift=config.max_drift,
            held_out=draw_held_out(
                stage.packed,
                stage.val_rows,
                count=config.prompt_check_images,
                every=config.prompt_check_every,
                patience=config.prompt_patience,
                device=stage.fabric.device,
            ),
            reference=actors.reference,
            class_counts=stage.class_counts,
            head=actors.head,
            student=actors.student,
            student_size=config.student_size,
            generator=generator_for(config.seed, epoch, purpose="explore noise"),
            record=record,
        )
    # All did it alike: batch statistics cannot be added up. Last digits may differ by machine.
    stage.processes.alike(actors.prompt, actors.head)
    history.insert(0, "epoch", epoch + 1)
    return history


def train_epoch(
    stage: Stage,
    epoch: int,
    *,
    position: Position | None = None,
    pause: Callable[[Position], None] = lambda position: None,
    skip: Callable[[SkippedStep], None] = lambda step: None,
    teller: Teller | None = None,
) -> dict[str, float]:
    """Pass once over the training images.

    Args:
        stage: What to work with.
        epoch: Counted from 0; decides order, augmentation and prompts.
        position: Where to begin, brought forward step by step; None is the first batch.
        pause: Called with the position after every step but the last; what is saved then goes on
            to the same bits.
        skip: Called with a step that was not taken, since its loss or gradient was not finite;
            may raise.
        teller: Told of every batch; None is silence.

    Returns:
        Means over the steps that were taken: ``loss``, and for a distilled student its parts
        ``loss_classes``, ``loss_second``, ``loss_distill``.

    Raises:
        WorkError: If no step at all was finite.
    """
    config = stage.config
    position = position or Position.begin(config, epoch)
    share = prompted_share(config, epoch)
    stage.student.train()
    passed = _drawn_batches(stage, epoch, position.batch)
    stage = replace(stage, class_counts=drawn_counts(stage, epoch))
    if teller is not None:
        passed = teller.watch(
            passed, epoch=epoch, total=stage.batches, what="batch", done=position.batch
        )
    while position.batch < stage.batches:
        step = Step(stage, min(config.accumulate, stage.batches - position.batch))
        for number, (images, labels) in enumerate(islice(passed, step.parts), start=1):
            prompt_it = float(torch.rand((), generator=position.chance)) < share
            noise = position.noise if prompt_it else None
            with stage.fabric.no_backward_sync(stage.student, enabled=number < step.parts):
                step.add(batch_losses(stage, images, labels, noise))
        losses, broken = step.take()
        position.advance(step.parts, losses, broken)
        ended = position.batch >= stage.batches
        waits = 0 if ended or broken.device.type == "cpu" else 1
        for first, parts, what in position.broken_steps(unread=waits):
            skip(SkippedStep(epoch, first, what, _drawn_rows(stage, epoch, first, parts)))
        if not ended:
            pause(position)
    if position.sums is None or not position.counted:
        raise WorkError(f"training: no step of epoch {epoch + 1} was finite; lower learning_rate")
    means = (position.sums / position.counted).tolist()
    names = ("loss", "loss_classes", "loss_second", "loss_distill")
    return dict(zip(names, means, strict=False))


def try_step(stage: Stage, epoch: int, batch_size: int) -> None:
    """Do what a step does, and an exploration's too, with batches of another size.

    It asks the device's memory alone: networks and optimiser are changed, and of no more use.

    Args:
        stage: What to work with.
        epoch: Counted from 0.
        batch_size: Images a batch.
    """
    config = stage.config.model_copy(update={"batch_size": batch_size, "prompt_steps": 1})
    stage = replace(stage, config=config)
    stage.optimiser.zero_grad()
    if stage.actors.prompt is not None and not config.prompt_file:
        explore_epoch(stage, epoch)
    stage.student.train()
    step = Step(stage, 1)
    noise = generator_for(config.seed, epoch, purpose="prompt noise")
    step.add(batch_losses(stage, *next(_drawn_batches(stage, epoch, 0)), noise))
    step.take()


def drawn_counts(stage: Stage, epoch: int) -> Tensor:
    """Count how often an epoch draws each class: the ``n`` of every balanced softmax in it.

    Args:
        stage: What to work with.
        epoch: Counted from 0.

    Returns:
        ``(K,)``, on the device; the class sizes themselves where each image is drawn once and
        unmixed.

    Raises:
        InputError: If a class is never drawn: its logarithm is minus infinity.
    """
    config = stage.config
    drawn = effective_counts(
        stage.class_counts.cpu().numpy(),
        sampler=config.sampler,
        progress=training_progress(epoch, config.epochs),
        mixup_alpha=config.mixup_alpha,
    )
    if config.method != "ce" and (drawn <= 0).any():
        empty = np.flatnonzero(drawn <= 0).tolist()
        raise InputError(f"class_counts: expected 1 or more a class, got 0 for classes {empty}")
    return torch.as_tensor(drawn).to(stage.class_counts)


def _drawn_batches(stage: Stage, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels; mixed ones have a share of each class as label."""
    options = {**_drawing(stage, epoch), "start_batch": start}
    if not stage.config.mixup_alpha:
        return batches(stage.packed, stage.rows, **options)
    alpha = stage.config.mixup_alpha
    pairs = paired_batches(stage.packed, stage.rows, alpha=alpha, **options)
    return (mix(pair, classes=len(stage.class_counts)) for pair in pairs)


def _drawn_rows(stage: Stage, epoch: int, start: int, count: int) -> np.ndarray:
    """Tell which rows some batches are made of, behind them those of mixed images' partners."""
    told = _drawing(stage, epoch)
    mode = told.pop("augment_mode")
    options = Options(**told, mode=mode)
    asked = [options, *([partners_of(options)] if stage.config.mixup_alpha else [])]
    part = slice(start * stage.batch_size, (start + count) * stage.batch_size)
    return np.concatenate([Pass(stage.packed, stage.rows, o).order()[part] for o in asked])


def _drawing(stage: Stage, epoch: int) -> dict[str, Any]:
    """Say how an epoch draws its batches, as options of `fopro_lab.data.batches`."""
    config = stage.config
    return {
        "batch_size": stage.batch_size,
        "shuffle": True,
        "drop_last": True,
        "augment": config.augment,
        "augment_mode": config.augment_mode,
        "sampler": config.sampler,
        "seed": config.seed,
        "epoch": epoch,
        "epochs": config.epochs,
        "rank": stage.processes.rank,
        "world_size": stage.processes.world_size,
        "device": stage.fabric.device,
    }


def prompt_drifts(runs: Iterable[Run], *, count: int = 64) -> pd.DataFrame:
    """Measure the drift of each run's prompt, as the teacher met it, on validation images.

    The control ``random`` moves the learned gains to other frequencies, where images may have
    much more energy or the teacher listens better: its drift is another one.

    Args:
        runs: Finished runs; those without a prompt are passed over.
        count: Validation images that each teacher is shown, the first ones.

    Returns:
        A row a run: ``run`` (folder), ``teacher``, ``method``, ``seed``, ``protocol``, ``drift``
        (mean ``1 - cos`` of the features with and without the prompt), ``n`` (images).

    Raises:
        InputError: If the images or the weights of a run are not where its config says.

    Example:
        >>> prompt_drifts([]).empty
        True
    """
    rows = []
    for run in runs:
        if run.method not in PROMPTING:
            continue
        config = TrainConfig.from_mapping(run.config)
        packed, split = prepare(config, progress=False)
        teacher = load_from(config)
        shown = split.val[:count]
        images, _ = next(batches(packed, shown, batch_size=len(shown)))
        noise = generator_for(config.seed, purpose="drift of a finished prompt")
        with torch.inference_mode():
            changed = prompted(
                images,
                TrainedRun.read(Path(run.path)).prompt(),
                generator=noise,
                places=places_of(config, noise) if config.method == "random" else None,
                per_image=config.random_gains == "per-image",
            )
            moved = drift(teacher.encode(images), teacher.encode(changed))
        rows.append(
            (run.name, config.teacher, run.method, run.seed, run.protocol, float(moved), len(shown))
        )
    columns = ["run", "teacher", "method", "seed", "protocol", "drift", "n"]
    return pd.DataFrame(rows, columns=columns)


def distill(config: TrainConfig, *, out: Path | str, verbose: bool = True) -> TrainedRun:
    """Train one student; the best epoch by validation is tested once.

    Started again with the same config and folder, it goes on from its last checkpoint, or returns
    what is there; a folder that holds another run is refused. However often and wherever it was
    stopped, on a CPU it ends with the bits of a run that never was. Started by torchrun in several
    processes, they share the work, and the first alone writes.

    Args:
        config: Method (a baseline without a teacher, too), data, teacher, prompt and recipe.
        out: The run folder.
        verbose: Say on standard error how far it is.

    Returns:
        The finished run.

    Raises:
        InputError: If the input is wrong or the folder holds another run.
        WorkError: If losses stop being finite, the disk or a GPU's memory is full, another run
            holds the folder, or a process has ended; the last checkpoint is kept.

    Example:
        >>> import tempfile
        >>> config = TrainConfig(method="bsm", images=120, image_size=16, epochs=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     distill(config, out=folder, verbose=False).state
        'done'
    """
    folder = Path(out).expanduser()
    started = start(config)
    with started.processes.heard():
        return _distilled(config, folder, started, verbose and started.processes.first)


def _distilled(config: TrainConfig, folder: Path, started: Started, verbose: bool) -> TrainedRun:
    processes = started.processes
    packed, split = processes.first_then_others(lambda: prepare(config, progress=verbose))
    dataset = packed.dataset
    prints = {"data_fingerprint": dataset.fingerprint, "split_fingerprint": split.fingerprint}
    if config.prompt_file and config.method in PROMPTING:
        prints["prompt_file_sha256"] = _prompt_hash(config)
    processes.agree({"config": identity(config), **prints})
    run = processes.first_does(lambda: found_run(folder, config, prints))
    if run is not None and run.state == "done":
        return run
    with ExitStack() as stack:
        processes.first_does(lambda: stack.enter_context(locked(folder)))
        if config.threads:
            torch.set_num_threads(config.threads)
        with deterministic(config.deterministic):  # from the first work on a GPU on
            stage = build_stage(config, packed, split, started=started)
        manifest = {**_manifest(stage, dataset, split), **prints}
        processes.agree({"teacher": _teacher_hash(manifest)})
        standing = _resume(stage, folder, manifest)
        manifest["started"] = standing.started
        processes.first_does(lambda: write_manifest(folder, {**manifest, "state": "running"}))
        try:
            with deterministic(config.deterministic):
                _train(stage, split, standing, folder, verbose)
                _finish(stage, split, standing, folder, manifest)
        except WorkError as error:
            with suppress(WorkError):  # the disk may be full for this, too
                if processes.first:
                    write_manifest(folder, {**manifest, "state": "failed", "reason": str(error)})
            raise
    return processes.first_does(lambda: TrainedRun.read(folder))


def _manifest(stage: Stage, dataset: Dataset, split: Split) -> dict[str, Any]:
    config, teacher = stage.config, stage.actors.teacher
    counts = [int(count) for count in stage.class_counts]
    return {
        "config": identity(config),
        "recipe": config.recipe,
        "protocol": split.protocol,
        "class_names": list(dataset.class_names),
        "class_counts": counts,
        "groups": groups_from(config, dataset.class_names, counts),
        "teacher": teacher.card if teacher is not None else None,
        "selected_by": "balanced accuracy on validation",
        "seeds": {"training": config.seed, "split": config.split_seed},
        **origin(stage.fabric.device),
        "processes": stage.processes.world_size,
    }


def _resume(stage: Stage, folder: Path, manifest: dict[str, Any]) -> Standing:
    state = stage.processes.first_does(lambda: _read_state(folder))
    if state is None:
        return Standing()
    if state["teacher"] != _teacher_hash(manifest):
        raise InputError(
            f"{folder}: was begun with another file of teacher weights; choose another --out"
        )
    stage.load_state(state)
    return Standing.from_state(state["standing"], device=stage.fabric.device)


def _read_state(folder: Path) -> dict[str, Any] | None:
    for left in folder.rglob(".*.part"):  # of a process that was killed while it wrote
        left.unlink(missing_ok=True)
    return load_checkpoint(folder, tell=lambda line: sys.stderr.write(f"{line}\n"))


def _prompt_hash(config: TrainConfig) -> str:
    path = Path(config.prompt_file).expanduser()
    if not path.is_file():
        raise InputError(f"prompt_file: {config.prompt_file}: no such file")
    return sha256_file(path)


def _teacher_hash(manifest: dict[str, Any]) -> str:
    return (manifest["teacher"] or {}).get("sha256", "")


def _train(stage: Stage, split: Split, standing: Standing, folder: Path, verbose: bool) -> None:
    config, teller = stage.config, Teller(stage.config, verbose=verbose)
    saver = Saver(stage, standing, folder)
    while not standing.ended(config):
        saver.begin_epoch()
        epoch = standing.epoch
        means = _learn(stage, standing, saver, teller)
        score = _judge(stage, split, standing)
        seconds = saver.seconds()
        row = {"epoch": epoch + 1, **means, "val_balanced_accuracy": score, "seconds": seconds}
        row["skipped"] = standing.skipped_steps()
        standing.history.append(row)
        standing.epoch, standing.seconds = epoch + 1, standing.seconds + seconds
        saver.after_epoch()
        loss, best = row["loss"], standing.best_score
        text = f"loss {loss:.3f}, validation balanced accuracy {score:.3f} (best {best:.3f})"
        teller.end_epoch(epoch, f"{text}, {seconds:.1f} s", last=standing.ended(config))


def _learn(stage: Stage, standing: Standing, saver: Saver, teller: Teller) -> dict[str, float]:
    """Explore and exploit for one epoch, or for what is left of it; say so if memory is short."""
    try:
        return _explore_and_exploit(stage, standing, saver, teller)
    except torch.OutOfMemoryError:
        pass  # what its frames held must be gone before smaller batches are tried
    if stage.processes.many:  # the others are in the midst of a step that this one cannot end
        count, times = stage.processes.world_size, stage.config.accumulate
        size = stage.batch_size // 2 // count * count
        more = f"try batch_size={size} accumulate={-(-stage.batch_size * times // max(size, 1))}"
        raise WorkError(
            f"out of GPU memory with batch_size = {stage.batch_size}, "
            f"{stage.batch_size // count} a process; "
            f"{more if size >= 2 * count else 'lower image_size'}"
        )
    size = fitting_size(lambda size: try_step(stage, standing.epoch, size), below=stage.batch_size)
    images = stage.batch_size * stage.config.accumulate
    fits = f"batch_size={size} accumulate={-(-images // size)} fits" if size else ""
    raise WorkError(
        f"out of GPU memory with batch_size = {stage.batch_size}; "
        f"{fits or 'not even 2 fit: lower image_size'}"
    )


def _explore_and_exploit(
    stage: Stage, standing: Standing, saver: Saver, teller: Teller
) -> dict[str, float]:
    epoch, position = standing.epoch, standing.position
    if position is None:
        if explores(stage.config, epoch):
            record = record_of(**exploration_place(stage.config, epoch))
            history = explore_epoch(stage, epoch, teller=teller, record=record)
            standing.exploration += history.to_dict("records")
            standing.masks += record.masks
        position = Position.begin(stage.config, epoch)
        saver.within_epoch(position)
    return train_epoch(
        stage,
        epoch,
        position=position,
        pause=saver.within_epoch,
        skip=saver.skip,
        teller=teller,
    )


def _judge(stage: Stage, split: Split, standing: Standing) -> float:
    """Validate the epoch that has just ended, and keep its student if it is the best."""
    student = stage.judged
    stage.processes.alike(student)  # unsynchronised batch norms have seen different images
    logits = predict(
        student,
        stage.packed,
        split.val,
        size=stage.config.student_size,
        processes=stage.processes,
    )
    score = balanced_accuracy(stage.packed.labels[split.val], logits.argmax(axis=1))
    if score > standing.best_score:
        standing.best_epoch, standing.best_score = standing.epoch + 1, score
        standing.best_student = on_cpu(student.state_dict())
    return score


def _finish(
    stage: Stage, split: Split, standing: Standing, folder: Path, manifest: dict[str, Any]
) -> None:
    """Test the best epoch, once, and close the run; the manifest is written last."""
    student = stage.actors.student
    student.load_state_dict(standing.best_student)
    size, processes = stage.config.student_size, stage.processes
    table = prediction_table(student, stage.packed, split, size=size, processes=processes)

    def close() -> None:
        write_weights(folder, standing.best_student, stage.actors.prompt)
        write_predictions(folder / "predictions.parquet", table)
        write_manifest(
            folder,
            {
                **manifest,
                "state": "done",
                "best_epoch": standing.best_epoch,
                "epochs_done": standing.epoch,
                "scores": {"val_balanced_accuracy": standing.best_score},
                "finished": now(),
                "wall_seconds": round(standing.seconds, 1),
            },
        )
        forget_previous(folder)

    processes.first_does(close)
