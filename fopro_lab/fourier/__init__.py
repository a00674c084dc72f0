"""The idea: gains over spatial frequency. Tensors only; needs torch alone."""

from fopro_lab.fourier.controls import random_gain_like
from fopro_lab.fourier.partition import (
    ring_edges,
    ring_energy,
    ring_gain,
    ring_masks,
    ring_parts,
)
from fopro_lab.fourier.prompts import FourierPrompt
from fopro_lab.fourier.scaling import apply_gain
from fopro_lab.fourier.spectrum import radial_frequency

__all__ = [
    "FourierPrompt",
    "apply_gain",
    "radial_frequency",
    "random_gain_like",
    "ring_edges",
    "ring_energy",
    "ring_gain",
    "ring_masks",
    "ring_parts",
]
