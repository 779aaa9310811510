"""OBQ (Frantar & Alistarh, arXiv 2208.11580): in every row, always round the weight that then costs least.

    p  = argmin_p (q(w_p) - w_p)^2 / [H^-1]_pp                  over the weights of the row not yet rounded
    w -= (w_p - q(w_p)) / [H^-1]_pp  [H^-1]_p,:                  H^-1 loses row and column p by one elimination step

Weights that drifted off their grid by more than half a step are rounded first, largest error first: later they would
cost more. Shapes: W (m, d); every row has its own H^-1 (d, d), so rows go in slices. O(m d^3): for small layers and as
a yardstick. Difference from known code: rows of a slice run together; the grid is fixed before (groups are static).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.layerwise.base import Method, Problem, Solution
from secateur.layerwise.elimination import Elimination, pulled, rows_at_a_time
from secateur.layerwise.gram import DAMP, spd_inverse
from secateur.layerwise.quantize.grids import Format, Grid, Search
from secateur.layerwise.quantize.packed import solution
from secateur.layerwise.quantize.rtn import codes_of, grid_of


@dataclass(frozen=True, slots=True)
class Settings:
    """See :class:`secateur.layerwise.quantize.gptq.Settings`."""

    bits: int = 4
    group: int = 128
    symmetric: bool = True
    search: Search = "mse"
    damp: float = DAMP


def solve(problem: Problem, settings: Settings) -> Solution:
    """Greedy rounding, row by row."""
    form = Format(settings.bits, settings.group, settings.symmetric)
    grid = grid_of(problem, form, settings.search)
    inverse = spd_inverse(problem.gram.damped(settings.damp))
    rows = rows_at_a_time(len(inverse), len(inverse))
    done = [
        greedy(problem.weight[i : i + rows], inverse, _rows(grid, i, i + rows))
        for i in range(0, problem.weight.shape[0], rows)
    ]
    return solution(problem, codes_of(torch.cat(done), grid), grid, form)


def greedy(weight: Tensor, inverse: Tensor, grid: Grid) -> Tensor:
    """The rounded rows (r, d) of ``weight``."""
    r, d = weight.shape
    w, left, every = weight.clone(), weight.new_ones(r, d, dtype=torch.bool), torch.arange(r)
    inner = Elimination(inverse, r, d)
    half = grid.scale.repeat_interleave(d // grid.scale.shape[1], dim=1) / 2
    for _ in range(d):
        q = grid.snap(w.reshape(r, grid.scale.shape[1], -1)).reshape(r, d)
        p = _next(q - w, inner.tiles[:, :, 0, 0], left, half)
        value = q[every, p]
        w -= pulled((w[every, p] - value)[:, None, None], *inner.lose(p))[:, 0]
        w[every, p] = value
        left[every, p] = False
    return w


def _next(gap: Tensor, diagonal: Tensor, left: Tensor, half: Tensor) -> Tensor:
    """Which weight of every row is rounded now, (r,)."""
    cost = torch.where(left, gap.square() / diagonal, torch.inf)
    off = torch.where(left & (gap.abs() > half * (1 + 1e-9)), gap.abs(), -torch.inf)
    worst = off.max(1)
    return torch.where(worst.values > 0, worst.indices, cost.argmin(1))


def _rows(grid: Grid, start: int, stop: int) -> Grid:
    return Grid(grid.scale[start:stop], grid.zero[start:stop], grid.low, grid.high)


METHOD = Method(
    "obq", "OBQ (2208.11580): in every row round what costs least; for small layers", "gram", Settings, solve
)
