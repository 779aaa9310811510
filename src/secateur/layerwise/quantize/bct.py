"""BCT (arXiv 2304.01483): tiles of the matrix, each with a scale of its own that is a power of two (a shift).

    W' = round(W_tile / s) s,   s = 2^k the least power of two with max|W_tile| <= (2^(b-1) - 1/2) s

Small tiles keep one large weight from spoiling the scale of many; a shift costs no multiplication. Reads no text.
Shapes: W (m, d), tiles (t, t), t the largest divisor up to ``tile``. Differences from known code: weights only (the
paper also quantises what flows between layers); ``shift=False`` takes the scale that just covers the tile instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.layerwise.base import Method, Problem, Solution
from secateur.layerwise.quantize.grids import Format, Grid
from secateur.layerwise.quantize.packed import solution
from secateur.layerwise.quantize.rtn import codes_of


@dataclass(frozen=True, slots=True)
class Settings:
    """``tile``: rows and columns that share a scale, at most."""

    bits: int = 4
    tile: int = 64
    shift: bool = True


def solve(problem: Problem, settings: Settings) -> Solution:
    """One scale a tile, written once for each of its rows, which is how loaders know groups."""
    form = Format(settings.bits, settings.tile)
    m, d = problem.weight.shape
    rows, columns = form.width(m), form.width(d)
    top = problem.weight.abs().reshape(m // rows, rows, d // columns, columns).amax((1, 3))
    scale = top / (2 ** (settings.bits - 1) - 0.5)
    if settings.shift:
        scale = torch.exp2(torch.ceil(torch.log2(scale)))
    stored = scale.to(problem.dtype).double()
    scale = torch.where(stored > 0, stored, 1.0).repeat_interleave(rows, 0)
    grid = Grid(scale, torch.zeros_like(scale), form.low, form.high)
    return solution(problem, codes_of(problem.weight, grid), grid, form, tile=(rows, columns))


METHOD = Method("bct", "BCT (2304.01483): tiles with power-of-two scales; no text", "nothing", Settings, solve)
