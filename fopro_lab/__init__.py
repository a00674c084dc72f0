"""An open laboratory for Fourier-prompted knowledge distillation on long-tailed pictures."""

__version__ = "0.1.0"
