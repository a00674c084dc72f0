"""What two processes check together; started by torchrun, silent if all is right."""

import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from fopro_lab.errors import InputError, WorkError
from fopro_lab.training.train import Processes, SharedBatchNorm, synchronised

CPU = torch.device("cpu")


def check_norm(shares: list[int], *, shape: tuple[int, ...], momentum: float | None) -> None:
    """Compare shares of a batch with plain batch norm on the whole, in float64.

    A mean of 1,000 beside a spread of 1 shows squares that are summed around zero, by 1e-10; norms
    of the own share alone are off by 0.1 and more, unweighted means of unequal shares as well.
    """
    source = torch.Generator().manual_seed(0)
    whole = 1000 + torch.randn(sum(shares), *shape, generator=source, dtype=torch.float64)
    weights = torch.randn(whole.shape, generator=source, dtype=torch.float64)
    kind = nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d
    plain = kind(shape[0], momentum=momentum).double()
    with torch.no_grad():
        plain.weight.normal_(generator=source)
        plain.bias.normal_(generator=source)
    shared = synchronised(nn.Sequential(kind(shape[0], momentum=momentum).double()), device=CPU)
    shared[0].load_state_dict(plain.state_dict())
    assert isinstance(shared[0], SharedBatchNorm) and list(shared[0].state_dict()) == list(
        plain.state_dict()
    )
    rank = dist.get_rank()
    own = slice(sum(shares[:rank]), sum(shares[: rank + 1]))
    for _ in range(2):
        given, mine = whole.clone().requires_grad_(), whole[own].clone().requires_grad_()
        plain.zero_grad()
        shared.zero_grad()
        expected, found = plain(given), shared(mine)
        (expected.sin() * weights).sum().backward()
        (found.sin() * weights[own]).sum().backward()
        torch.testing.assert_close(found, expected[own], rtol=0, atol=1e-10)
        torch.testing.assert_close(mine.grad, given.grad[own], rtol=0, atol=1e-10)
        for name in ("weight", "bias"):  # each process has its own images' part
            gradient = getattr(shared[0], name).grad.clone()
            dist.all_reduce(gradient)
            torch.testing.assert_close(gradient, getattr(plain, name).grad, rtol=0, atol=1e-9)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(shared[0].state_dict()[name], value, rtol=1e-12, atol=1e-10)
    plain.eval()
    shared.eval()
    if shares[rank]:
        torch.testing.assert_close(shared(whole[own]), plain(whole)[own], rtol=0, atol=1e-10)


def check_joined(processes: Processes, count: int) -> None:
    rows = np.arange(3 * count, dtype=np.float32).reshape(count, 3)
    share = processes.share(count)
    np.testing.assert_array_equal(processes.joined(rows[share.start : share.stop], count), rows)


def check_words(processes: Processes) -> None:
    assert processes.first_does(lambda: {"rank": processes.rank}) == {"rank": 0}
    for kind in (InputError, WorkError):

        def fail(kind: type[Exception] = kind) -> None:
            raise kind(f"from {processes.rank}")

        with pytest.raises(kind, match=r"^from 0$"):
            processes.first_does(fail)
    processes.agree({"data": 1})
    assert float(processes.mean(torch.tensor(float(processes.rank)))) == 0.5
    network = nn.BatchNorm1d(2)
    network.register_buffer("seen", torch.tensor(processes.first))
    network.running_mean += processes.rank
    processes.alike(network, None)
    assert bool(network.seen) and network.running_mean.tolist() == [0, 0]
    if processes.first:
        processes.agree({"data": 1})
    else:
        with pytest.raises(InputError, match="process 2 of 2: its data is not that of the first"):
            processes.agree({"data": 2})


if __name__ == "__main__":
    dist.init_process_group("gloo")
    together = Processes(dist.get_rank(), 2)
    for momentum in (0.1, None):
        for sizes in ([4, 4], [5, 3], [8, 0], [1, 1]):
            check_norm(sizes, shape=(3, 2, 5), momentum=momentum)
            check_norm(sizes, shape=(4,), momentum=momentum)
    for rows in (0, 1, 2, 5, 8):
        check_joined(together, rows)
    check_words(together)
    dist.destroy_process_group()
    sys.exit(0)
