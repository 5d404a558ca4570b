"""Active learning for PyTorch object detectors: predictions by hooks, frames worth annotating as a Subset."""

__version__ = "0.1.0"
