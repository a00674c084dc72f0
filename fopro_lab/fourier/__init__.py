"""Gains over spatial frequency: rings, gains, prompts, on plain tensors of torch."""

from fopro_lab.arguments import check_public
from fopro_lab.fourier.gain import apply_gain
from fopro_lab.fourier.prompt import FourierPrompt, random_gain_like
from fopro_lab.fourier.rings import (
    radial_frequency,
    ring_edges,
    ring_energy,
    ring_gain,
    ring_masks,
    ring_parts,
)
from fopro_lab.fourier.spectrum import fit_prompt, mean_amplitude, spectrum_gain

check_public(__name__)
