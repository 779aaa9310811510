"""Fast paths for recurrent layers in plain torch, each beside its slow reference, switched on by :func:`fast`."""

from secateur.kernels.context import FastReport, fast

__all__ = ["FastReport", "fast"]
