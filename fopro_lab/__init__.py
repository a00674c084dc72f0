"""An open laboratory for Fourier-prompted knowledge distillation on long-tailed images."""

__version__ = "0.1.0"
