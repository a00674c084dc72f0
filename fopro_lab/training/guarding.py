"""Guard rails: steps that may not be taken, memory that does not suffice, bits that must repeat."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fopro_lab.errors import WorkError

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
