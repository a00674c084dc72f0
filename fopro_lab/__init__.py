"""An open laboratory for Fourier-prompted knowledge distillation on long-tailed images."""

__version__ = "0.2.0"
