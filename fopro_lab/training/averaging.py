"""A moving average of the student: what is validated, kept and tested where it is on."""

import copy

import torch
from torch import Tensor, nn


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
