"""The command line."""

from cval_torch.cli.main import main

__all__ = ["main"]
