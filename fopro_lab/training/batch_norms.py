"""Batch norms that see the batch of all processes, on a CPU as on GPUs."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fopro_lab.fourier.spectrum import at_least_single


def synchronised(network: nn.Module, *, device: torch.device) -> nn.Module:
    """Let every batch norm of a network see the pictures of all processes.

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
    def like(cls, norm: _BatchNorm) -> "SharedBatchNorm":
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
    """``(x - mean) * factor``, where both depend on the pictures of all processes."""

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
