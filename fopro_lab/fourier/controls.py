"""The control of a learned prompt: as much gain, in another place."""

import torch
from torch import Tensor

from fopro_lab.fourier.prompts import FourierPrompt

TINY = 1e-12  # a spread of log gain that is none


def random_gain_like(
    prompt: FourierPrompt,
    batch: int,
    generator: torch.Generator,
    *,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Draw gains distributed like the prompt's, without their arrangement over frequency.

    The log gains of the coarse cells are drawn from the prompt and shuffled, for each picture anew
    and alike in its channels. Reading a shuffled map between its cells averages neighbours that no
    longer agree, so the result is scaled to the mean and spread, over frequency, of the log gain
    that was drawn, and clipped at the prompt's bound. What differs from the prompt is the place of
    the gains, and that each picture has places of its own: averaged over pictures, little is left.

    Args:
        prompt: The learned prompt; it gets no gradient.
        batch: Number of pictures.
        generator: Source of the noise and of the order, on any device.
        size: Height and width of the pictures, pixels; None is the prompt's own.

    Returns:
        ``(batch, C, H, W // 2 + 1)``, dimensionless, 1 at DC, within the prompt's bound.

    Example:
        >>> prompt = FourierPrompt("shared", size=8)
        >>> random_gain_like(prompt, 2, torch.Generator().manual_seed(0)).unique().tolist()
        [1.0]
    """
    with torch.no_grad():
        cells = prompt.sample_log_cells(batch, generator)
        learned = prompt.spread(cells, size=size).log()
        shuffled = prompt.spread(_shuffled(cells, generator), size=size).log()
        learned_spread, learned_mean = _spread_and_mean(learned)
        spread, mean = _spread_and_mean(shuffled)
        scale = learned_spread / spread.clamp(min=TINY)
        log_gain = (shuffled - mean) * scale + learned_mean
        log_gain = log_gain.clamp(-prompt.max_log_gain, prompt.max_log_gain)
        log_gain[..., 0, 0] = 0
        return log_gain.exp()


def _shuffled(cells: Tensor, generator: torch.Generator) -> Tensor:
    """Permute the cells ``(B, C, ...)`` of each picture, alike in its channels."""
    flat = cells.flatten(2)
    keys = torch.rand(len(flat), flat.shape[2], generator=generator, device=generator.device)
    order = keys.argsort(dim=1).to(flat.device)[:, None, :].expand(flat.shape)
    return flat.gather(2, order).reshape(cells.shape)


def _spread_and_mean(log_gain: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean over all frequencies but DC, ``(B, C, 1, 1)`` each."""
    others = log_gain.flatten(-2)[..., 1:, None]
    return torch.std_mean(others, dim=(-2, -1), correction=0, keepdim=True)
