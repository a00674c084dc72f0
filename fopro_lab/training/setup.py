"""What a training works with before its first step: processes, images, networks, optimiser."""

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, lr_scheduler
from torch.utils._pytree import tree_leaves

from fopro_lab.config import StepConfig, TrainConfig
from fopro_lab.data import Pack, Split, batches, prepare
from fopro_lab.data.batches import place_images
from fopro_lab.data.pack import split_from
from fopro_lab.data.split_rules import check_split
from fopro_lab.errors import InputError, WorkError
from fopro_lab.evaluation import balanced_accuracy, groups_from
from fopro_lab.evaluation.scores import group_ties
from fopro_lab.fourier import mean_amplitude
from fopro_lab.models import Teacher, choose_device, load_from
from fopro_lab.models.teacher import check_takes, quick_teacher
from fopro_lab.training.fitted_head import fit_probe
from fopro_lab.training.methods import Part, find_method
from fopro_lab.training.run_folder import TrainedRun, deciding_options, origin
from fopro_lab.training.statistics import Reference, reference_of, reference_spectrum
from fopro_lab.training.teacher_features import CHUNK, KeptFeatures
from fopro_lab.training.train_prompt import active_objectives, adapt_images

SELECTED_BY = {
    "best": "balanced accuracy on validation",
    "last": "last epoch",
    "ema": "last epoch, average of its weights",
}
BATCH = 128  # images classified together
SEEN = 256  # training images whose spectrum the objective `spectrum` starts from
PAYS = 1_000_000  # images in all epochs, from which a minute of compiling is won back on a GPU
TEACHER_PAYS = 100_000  # and from which that of a frozen teacher is on a CPU with bfloat16 units
GRAPHS = 32  # images per batch and process, up to which CUDA graphs are replayed
WARMUP_START = 0.01  # share of the learning rate in the very first step of a warm-up


@dataclass(frozen=True, eq=False)
class TrainSetup:
    """What a run works with and does not change."""

    config: TrainConfig
    fabric: Fabric
    packed: Pack
    split: Split
    class_counts: Tensor  # (K,), training images, float, on the device
    method: dict[str, Part]  # by kind
    teacher: Teacher | None = None  # as loaded: what prompts are trained on
    fast_teacher: Teacher | None = None  # the same, faster: it gives the student's targets
    reference: Reference | None = None  # what the objective `statistics` compares with
    kept: KeptFeatures | None = None  # read in place of passes of the teacher
    spectrum: tuple[Tensor, Tensor] | None = None  # amplitudes (24,) seen, and aimed at
    compile_seconds: dict[str, float] = field(default_factory=dict)  # of teacher and student

    @property
    def batch_size(self) -> int:
        """Images per batch, of all processes: at most all there are, and as many for each."""
        size = min(self.config.batch_size, len(self.split.train))
        return size - size % self.fabric.world_size

    @property
    def batches(self) -> int:
        """Whole batches per epoch."""
        return len(self.split.train) // self.batch_size

    @property
    def steps(self) -> int:
        """Steps of the optimiser per epoch; the last one may have fewer batches."""
        return math.ceil(self.batches / self.config.accumulate)

    def manifest(self) -> dict[str, Any]:
        """Return what the manifest of the run folder says of the run before its first epoch."""
        config, names = self.config, self.packed.dataset.class_names
        counts = [int(count) for count in self.class_counts.tolist()]
        groups = groups_from(config, names, counts)
        ties = group_ties(groups, dict(zip(names, counts, strict=True)))
        about: dict[str, Any] = {"config": deciding_options(config), "recipe": config.recipe}
        about |= {"method": config.parts.label, "protocol": self.split.protocol, "groups": groups}
        about |= {"data_notes": [*self.packed.dataset.notes, *self.split.notes, *ties]}
        about |= {"class_names": list(names), "class_counts": counts}
        about |= {"teacher": self.teacher.card if self.teacher is not None else None}
        about |= {"selected_by": SELECTED_BY[config.keeps]}
        about |= {"seeds": {"training": config.seed, "split": config.split_seed}}
        about |= {**origin(self.fabric.device), "processes": self.fabric.world_size}
        return about | ({"compile_seconds": self.compile_seconds} if self.compile_seconds else {})


def build_setup(
    config: TrainConfig,
    *,
    fabric: Fabric,
    packed: Pack,
    split: Split,
    teacher: Teacher | None = None,
    method: dict[str, Part] | None = None,
    verbose: bool = False,
) -> TrainSetup:
    """Load and measure what the method needs, on the device of ``fabric``.

    ``teacher`` and ``method`` replace those that the config names; baselines have no teacher.
    """
    method = method or find_method(config)[1]
    world = fabric.world_size
    needed = world * (1 if config.sync_batch_norm or world == 1 else 2)
    if (got := len(split.train)) < needed:
        expected = f"{needed} images or more for {world} processes"
        raise InputError(f"training: expected {expected}, got {got}; start fewer processes")
    counts = torch.as_tensor(split.class_counts(packed.dataset)).to(fabric.device, torch.float32)
    place_images(packed, fabric.device, how=config.resident)
    if not config.parts.is_taught:
        return TrainSetup(config, fabric, packed, split, counts, method)
    tell = progress_log(verbose)
    teacher = teacher or load_from(config, device=fabric.device)
    half = "bfloat16" if config.precision == "bf16-mixed" else "float32"
    kind = half if config.teacher_precision == "auto" else config.teacher_precision
    fast = quick_teacher(teacher, dtype=getattr(torch, kind), tell=tell)
    if kind == "float16":  # which ends at 65504
        check_takes(fast, config.image_size)
    reference, spectrum, kept, adapt = None, None, None, None
    trains = config.parts.learns_prompt and not config.prompt_file
    active = active_objectives(config.objectives) if trains else {}
    if config.parts.prompt == "vptta" or "statistics" in active:
        reference = reference_of(teacher, natural=config.natural, size=config.image_size)
        teacher.card["statistics"] = reference.source
    if config.parts.prompt == "vptta":
        how: dict[str, Any] = {"teacher": teacher, "reference": reference}
        how |= {"steps": config.prompt_steps, "learning_rate": config.prompt_learning_rate}
        adapt = partial(adapt_images, max_log_gain=config.max_log_gain, **how)
        method["prompt"] = Part("prompt", "vptta", adapt, ("images",))
    if "spectrum" in active:
        aim, teacher.card["spectrum"] = reference_spectrum(config)
        rows = split.train[:: -(-len(split.train) // SEEN)]
        images, _ = next(batches(packed, rows, batch_size=len(rows), device=fabric.device))
        seen = mean_amplitude(images)
        spectrum = (seen, aim.to(seen))
    if config.teacher_views:
        kept = KeptFeatures(config, fabric, packed, teacher, fast, adapt, talk=verbose)
    networks = (teacher, fast, reference, kept, spectrum)
    setup = TrainSetup(config, fabric, packed, split, counts, method, *networks)
    side = teacher.input_size if teacher.resize else config.image_size
    if kept is None:
        fast.body = compiled(fast.body, setup, side=side, tell=tell)
    elif compiles(setup, frozen=True):  # before the first features that are not there
        kept.quicken = partial(compiled, setup=setup, side=side, count=CHUNK, tell=tell)
    return setup


def compiles(setup: TrainSetup, *, frozen: bool) -> bool:
    """Tell whether a network is compiled: as ``compile`` says or, by ``auto``, where it pays."""
    config, images = setup.config, len(setup.split.train)
    if setup.fabric.device.type == "cuda":
        live = not (frozen and config.teacher_views)  # kept features come once
        pays = images * config.epochs >= PAYS and live and not config.deterministic
    else:
        seen = images * min(config.epochs, config.teacher_views or config.epochs)
        pays = frozen and seen >= TEACHER_PAYS and config.precision == "bf16-mixed"
    return config.compile == "on" or (config.compile == "auto" and pays)


def progress_log(verbose: bool) -> Callable[[str], object]:
    """Return what writes a line to standard error, or nothing."""
    return lambda line: sys.stderr.write(f"{line}\n" if verbose else "")


def compiled(
    network: nn.Module,
    setup: TrainSetup,
    *,
    side: int,
    count: int = 0,
    tell: Callable[[str], object],
) -> Any:
    """Compile a network and try it on grey images before anything is timed, the way back included.

    Small batches on a GPU, where starting kernels is what takes time, replay CUDA graphs; a frozen
    network on a CPU has its weights folded into the code. What cannot be compiled stays as it is,
    with one line. ``setup.compile_seconds`` takes how long it was. ``count``: images of a batch,
    0 for those of the training.
    """
    config, fabric, seconds = setup.config, setup.fabric, setup.compile_seconds
    device, count = fabric.device, count or setup.batch_size // fabric.world_size
    frozen = not any(weight.requires_grad for weight in network.parameters())
    if not compiles(setup, frozen=frozen):
        return network
    name = "teacher" if frozen else "student"
    how: dict[str, Any] = {"options": {"freezing": True}} if frozen and device.type == "cpu" else {}
    # The gradients of a graph lie where the next batch writes its own: none can be added to.
    if device.type == "cuda" and count <= GRAPHS and (frozen or config.accumulate == 1):
        how["mode"] = "reduce-overhead"
    layout = torch.channels_last if frozen else torch.contiguous_format
    before = {key: value.clone() for key, value in network.named_buffers()}
    began, used = time.perf_counter(), [device] if device.type == "cuda" else []
    made: Any = torch.compile(network, **how)
    try:
        with torch.random.fork_rng(used), torch.inference_mode(frozen), fabric.autocast():
            # Made here: to a compiler, tensors of inference mode are of a kind of their own.
            grey = torch.full((count, 3, side, side), 0.5, device=device)
            grey = grey.contiguous(memory_format=layout)
            for _ in range(3):  # graphs are recorded after the first
                network.zero_grad()
                outputs = [x for x in tree_leaves(made(grey)) if isinstance(x, Tensor)]
                if not frozen:
                    torch.stack([x.float().mean() for x in outputs]).sum().backward()
        seconds[name] = round(time.perf_counter() - began, 1)
        tell(f"fopro: {name} compiled in {seconds[name]:.0f} s")
    except Exception as error:  # no compiler, or a network that it does not understand
        made = network
        tell(f"fopro: {name} not compiled ({type(error).__name__}: {error}".splitlines()[0] + ")")
    with torch.no_grad():
        for key, value in network.named_buffers():  # batch norms have seen grey images
            value.copy_(before[key])
    network.zero_grad()
    return made


def prepare_images(
    config: TrainConfig, fabric: Fabric, packed: Pack | None, split: Split | None, *, verbose: bool
) -> tuple[Pack, Split]:
    """Prepare what the config names, or split and check what is given in its place."""
    if packed is None:
        if split is not None:
            raise InputError("split: expected packed with it, the images that it splits")
        with fabric.rank_zero_first(local=True):  # a machine's others find the pack in its cache
            return prepare(config, progress=verbose)
    if packed.size != (size := config.image_size):
        raise InputError(f"packed: expected images of image_size={size} px, got {packed.size}")
    split = split if split is not None else split_from(packed.dataset, config)
    check_split(split, packed.dataset)
    return packed, split


def fit_teacher_probe(probe: nn.Linear, setup: TrainSetup) -> float:
    """Fit the probe that gives the teacher's logits on training images; return its score.

    Every process does the same; validation images choose the scale of the logits.
    """
    assert setup.fast_teacher is not None
    parts = []
    for rows in (setup.split.train, setup.split.val):
        stream = batches(setup.packed, rows, batch_size=BATCH, device=setup.fabric.device)
        with torch.inference_mode(), setup.fabric.autocast():
            found = [  # copies: a replayed graph writes over what it gave
                (setup.fast_teacher.encode(images).to(torch.float32, copy=True), labels)
                for images, labels in stream
            ]
        parts.append([torch.cat(each).cpu() for each in zip(*found, strict=True)])
    (features, labels), (others, known) = parts
    held_out, classes = (others, known), len(setup.class_counts)
    weight, bias = fit_probe(features, labels, held_out=held_out, classes=classes)
    probe.load_state_dict({"weight": weight, "bias": bias})
    share_state(setup.fabric, probe)  # machines may differ in the last digits
    return balanced_accuracy(known.numpy(), (others @ weight.T + bias).argmax(dim=1).numpy())


@torch.no_grad()
def share_state(fabric: Fabric, *modules: nn.Module | None) -> None:
    """Give every process the parameters and buffers of the first."""
    if fabric.world_size > 1:
        for module in filter(None, modules):
            state = {name: value.cpu() for name, value in module.state_dict().items()}
            module.load_state_dict(fabric.broadcast(state))


def build_optimiser(parameters: Iterable[nn.Parameter], config: StepConfig) -> Optimizer:
    """Build PyTorch's optimiser: Adam and SGD penalise squared weights, AdamW shrinks weights."""
    how: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimiser == "sgd":
        return SGD(parameters, momentum=config.momentum, fused=True, **how)
    return (Adam if config.optimiser == "adam" else AdamW)(parameters, fused=True, **how)


def build_schedule(
    optimiser: Optimizer, config: StepConfig, *, epochs: int, epoch_steps: int
) -> lr_scheduler.LRScheduler | None:
    """Build the schedule of the learning rate, per step; None where the rate never changes.

    The warm-up is in epochs of ``epoch_steps``.
    """
    warmup = math.ceil(config.lr_warmup * epoch_steps)
    if config.schedule == "constant" and not warmup:
        return None
    after: Any = lr_scheduler.LambdaLR(optimiser, lambda _: 1.0)
    if config.schedule == "cosine":
        # The last step, not one past it, has a rate of 0; a single step has the full one.
        left = max(1, epochs * epoch_steps - 1 - warmup)
        after = lr_scheduler.CosineAnnealingLR(optimiser, T_max=left)
    if not warmup:
        return after
    rising = lr_scheduler.LinearLR(optimiser, start_factor=WARMUP_START, total_iters=warmup)
    return lr_scheduler.SequentialLR(optimiser, [rising, after], milestones=[warmup])


def settle_precision(config: TrainConfig, folder: Path) -> TrainConfig:
    """Replace the precision ``auto`` by that of the run in a folder, or by what the device has."""
    if config.precision != "auto":
        return config
    with suppress(InputError):
        begun = TrainedRun.read(folder).train_config.precision
        return config.model_copy(update={"precision": begun})
    if choose_device(config.device).type == "cuda":
        has_units = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_units = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return config.model_copy(update={"precision": "bf16-mixed" if has_units else "32-true"})


def start_fabric(config: TrainConfig) -> Fabric:
    """Choose device and precision, and join the other processes if torchrun started several."""
    for name in ("lightning_fabric.utilities.distributed", "lightning_fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)  # banners about precision and processes
    device = choose_device(config.device)
    how: dict[str, Any] = {"accelerator": device.type, "precision": config.precision}
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    if device.type == "cuda" and not any(name in os.environ for name in names):
        os.environ[names[1]] = "expandable_segments:True"  # read before the first allocation
    # Said, not detected: in a Slurm job it would take the job's tasks for its processes.
    if not _launched():
        return Fabric(devices=1, plugins=[LightningEnvironment()], **how)
    how["plugins"] = [TorchElasticEnvironment()]
    world, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if (got := config.batch_size) % world:
        rule = f"expected a multiple of the {world} processes, got {got}"
        raise InputError(f"batch_size: {rule}; it is that of all processes together")
    if config.sync_batch_norm and device.type != "cuda":
        raise InputError("sync_batch_norm: needs GPUs with several processes; set it to false")
    each = 3 if config.parts.distillation == "rkd" else 2  # of two images no distance differs
    if got < each * world and not (config.sync_batch_norm and each == 2):
        rule = f"expected {each * world} or more, {each} per process"
        raise InputError(f"batch_size: {rule}, got {got}")
    if device.type == "cuda" and (count := torch.cuda.device_count()) < here:
        raise InputError(f"torchrun: expected up to {count} processes, one per GPU, got {here}")
    fabric = Fabric(devices=here, num_nodes=world // here, strategy="ddp", **how)
    fabric.launch()
    return fabric


def _launched() -> bool:
    """Tell whether torchrun has started several processes, of which this is one."""
    return dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1


def is_first() -> bool:
    """Tell whether this process may print results: it is the only one, or the first."""
    return not _launched() or os.environ["RANK"] == "0"


@contextmanager
def torch_settings(config: TrainConfig) -> Iterator[None]:
    """Set torch's threads and, if asked for, determinism; say in one line what it cannot do.

    A deterministic PyTorch uses only operations that give the same bits on the same device.
    """
    threads = torch.get_num_threads()
    if config.threads:
        torch.set_num_threads(config.threads)
    mode, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = not config.deterministic
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at cuBLAS's first use
        torch.use_deterministic_algorithms(True)
    try:
        yield
    except torch.OutOfMemoryError as error:
        half, twice = max(2, config.batch_size // 2), 2 * config.accumulate
        raise WorkError(
            f"out of GPU memory with batch_size = {config.batch_size}; try batch_size={half} "
            f"accumulate={twice} resident=off or a lower image_size, and another --out"
        ) from error
    except RuntimeError as error:
        if not config.deterministic or "deterministic" not in str(error):
            raise
        problem = f"{str(error).split('.')[0]}; use device=cpu or deterministic=false"
        raise WorkError(f"deterministic: {problem}") from error
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.benchmark = benchmark
