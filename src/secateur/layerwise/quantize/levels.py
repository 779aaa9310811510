"""Grids that are not uniform: a table of levels times a scale."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

_NEWTON, _SAMPLES, _ROUNDS = 50, 1 << 15, 50


def nearest(x: Tensor, levels: Tensor) -> Tensor:
    """Index of the level nearest to each entry of ``x`` (any shape); ``levels`` (n,) rising."""
    return torch.bucketize(x.contiguous(), (levels[1:] + levels[:-1]) / 2)


def power_levels(bits: int, exponent: float) -> Tensor:
    """sign(c) |c / c_max|^(1/a) for the whole numbers c of ``bits`` bits, symmetric about 0; (2^b - 1,) in [-1, 1]."""
    top = 2 ** (bits - 1) - 1
    c = torch.arange(-top, top + 1, dtype=torch.float64) / top
    levels: Tensor = c.sign() * c.abs().pow(1 / exponent)
    return levels


@cache
def gaussian_levels(count: int) -> Tensor:
    """The ``count`` levels with the least squared error for a standard normal variable (Lloyd 1982, Max 1960).

    Where thresholds are midpoints and levels the means between them; found by Newton's method from a normal of
    variance 3, the density of levels that is best for many of them (Panter & Dite 1951).
    """
    level: Tensor = 3**0.5 * torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)
    inf = level.new_tensor([math.inf])
    for _ in range(_NEWTON):
        inner = (level[1:] + level[:-1]) / 2
        edge = torch.cat([-inf, inner, inf])
        density = torch.exp(-edge.square() / 2) / math.sqrt(2 * math.pi)
        mass = torch.special.ndtr(edge[1:]) - torch.special.ndtr(edge[:-1])
        mean = (density[:-1] - density[1:]) / mass
        left, right = density[1:-1] * (mean[1:] - inner) / mass[1:], density[1:-1] * (inner - mean[:-1]) / mass[:-1]
        slope = torch.diag(left, -1) / 2 + torch.diag(right, 1) / 2
        slope += torch.diag(torch.cat([right, left.new_zeros(1)]) + torch.cat([left.new_zeros(1), left])) / 2
        step = torch.linalg.solve(torch.eye(count, dtype=torch.float64) - slope, mean - level)
        level = level + step
        if float(step.abs().max()) < 1e-13:
            break
    return level


@cache
def gaussian_pairs(count: int, seed: int = 0) -> Tensor:
    """``count`` points of the plane with (locally) least squared error for two standard normal variables, (count, 2):
    Lloyd's iteration on 2^15 samples, from points of twice their variance (the best density for many points)."""
    from scipy.spatial import cKDTree

    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(_SAMPLES, 2, generator=generator, dtype=torch.float64)
    points = 2**0.5 * samples[torch.randperm(len(samples), generator=generator)[:count]]
    for _ in range(_ROUNDS):
        index = torch.from_numpy(cKDTree(points.numpy()).query(samples.numpy())[1])
        total = torch.zeros_like(points).index_add_(0, index, samples)
        number = torch.zeros(count, dtype=torch.float64).index_add_(
            0, index, torch.ones(len(samples), dtype=torch.float64)
        )
        points = torch.where(number[:, None] > 0, total / number.clamp(min=1)[:, None], points)
    return points
