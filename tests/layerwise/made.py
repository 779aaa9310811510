"""Linears and inputs for tests of layer-wise methods."""

from __future__ import annotations

import torch

from secateur.layerwise.base import Problem
from secateur.layerwise.gram import Gram


def inputs(tokens: int, width: int, *, seed: int = 0, correlation: float = 2.0) -> torch.Tensor:
    """(tokens, width) float64: mixed through a random matrix whose singular values fall off, of unequal loudness."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, width, generator=g, dtype=torch.float64)
    mix, _ = torch.linalg.qr(torch.randn(width, width, generator=g, dtype=torch.float64))
    fall = torch.exp(-correlation * torch.arange(width, dtype=torch.float64) / width)
    loud = torch.exp(0.5 * torch.randn(width, generator=g, dtype=torch.float64))
    return x * fall @ mix * loud


def problem(rows: int, width: int, *, seed: int = 0, tokens: int = 512, dtype: torch.dtype = torch.float32) -> Problem:
    """A random linear with weights its file can hold, on correlated inputs."""
    g = torch.Generator().manual_seed(seed + 1)
    weight = torch.randn(rows, width, generator=g, dtype=torch.float64).to(dtype).double()
    return Problem("layer.weight", weight, Gram.of(inputs(tokens, width, seed=seed)), dtype=dtype)
