"""decoupleQ (Guo et al., arXiv 2404.12759): codes and scales are two unknowns of one least-squares problem.

    min over whole numbers q and floats s of  (w - s (q - z)) H (w - s (q - z))^T           for every row w

alternately: codes for fixed scales by going round the columns, each set to the best value while the others stand,

    q_j = nearest code of  w'_j + [(w - w') H]_j / H_jj

and scales for fixed codes in closed form: with v = q - z and group masks, A s = b, A_gg' = sum v_j H_jj' v_j' over
j in g, j' in g', b_g = sum v_j [w H]_j. Neither step can raise the error, and both start from GPTQ's answer.

Shapes: W (m, d), s (m, groups), A (m, groups, groups). Differences from known code: coordinate descent in place of
projected gradients; zeros stay whole numbers, so that the result packs like GPTQ's; a row keeps its old scales where
rounding them to their stored dtype would undo the gain.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.layerwise.base import Method, Problem, Solution
from secateur.layerwise.gram import DAMP
from secateur.layerwise.quantize import gptq
from secateur.layerwise.quantize.grids import Format, Grid, Search
from secateur.layerwise.quantize.packed import solution
from secateur.layerwise.quantize.rtn import codes_of


@dataclass(frozen=True, slots=True)
class Settings:
    """``rounds``: alternations; the other fields as in :class:`secateur.layerwise.quantize.gptq.Settings`."""

    bits: int = 4
    group: int = 128
    symmetric: bool = True
    search: Search = "mse"
    rounds: int = 4
    damp: float = DAMP


def solve(problem: Problem, settings: Settings) -> Solution:
    """Alternate from GPTQ's codes; ``notes["trace"]``: the damped error after each half step."""
    form = Format(settings.bits, settings.group, settings.symmetric)
    start = gptq.Settings(settings.bits, settings.group, settings.symmetric, settings.search, damp=settings.damp)
    codes, grid, _ = gptq.quantise(problem, start, form)
    h = problem.gram.damped(settings.damp)
    trace = [_loss(problem.weight, grid, codes, h)]
    for _ in range(settings.rounds):
        grid = better_scales(problem.weight, grid, codes, h, problem.dtype)
        trace.append(_loss(problem.weight, grid, codes, h))
        codes = better_codes(problem.weight, grid, codes, h)
        trace.append(_loss(problem.weight, grid, codes, h))
    return solution(problem, codes, grid, form, trace=trace)


def better_codes(weight: Tensor, grid: Grid, codes: Tensor, h: Tensor) -> Tensor:
    """One round over the columns, in turn; (m, d)."""
    d = weight.shape[1]
    width = d // grid.scale.shape[1]
    value = _values(grid, codes).T.contiguous()
    pull = ((weight - value.T) @ h).T.contiguous()  # (d, m): [(w - w') H]_j
    for j in range(d):
        if j % width == 0:
            snap = grid.column(j // width, value.dtype)
        new = snap(value[j] + pull[j] / h[j, j])
        pull -= torch.outer(h[j], new - value[j])
        value[j] = new
    return codes_of(value.T, grid)


def better_scales(weight: Tensor, grid: Grid, codes: Tensor, h: Tensor, dtype: torch.dtype) -> Grid:
    """Scales by least squares for every row, where they help."""
    m, groups = grid.scale.shape
    v = codes.reshape(m, groups, -1) - grid.zero[..., None]
    width = v.shape[2]
    a = weight.new_empty(m, groups, groups)
    for g in range(groups):
        reach = v[:, g] @ h[g * width : (g + 1) * width]
        a[:, g] = (reach.reshape(m, groups, width) * v).sum(-1)
    b = ((weight @ h).reshape(m, groups, width) * v).sum(-1)
    empty = (v == 0).all(-1)  # nothing to scale: any scale will do
    a.diagonal(dim1=1, dim2=2)[empty] = 1.0
    b = torch.where(empty, grid.scale, b)
    solved = torch.linalg.lstsq(a, b[..., None]).solution[..., 0].to(dtype).double()
    tried = Grid(torch.where(solved > 0, solved, grid.scale), grid.zero, grid.low, grid.high)
    helps = _row_loss(weight, tried, codes, h) < _row_loss(weight, grid, codes, h)
    return Grid(torch.where(helps[:, None], tried.scale, grid.scale), grid.zero, grid.low, grid.high)


def _values(grid: Grid, codes: Tensor) -> Tensor:
    m, d = codes.shape
    return grid.values(codes.reshape(m, grid.scale.shape[1], -1)).reshape(m, d)


def _row_loss(weight: Tensor, grid: Grid, codes: Tensor, h: Tensor) -> Tensor:
    gap = weight - _values(grid, codes)
    return ((gap @ h) * gap).sum(1)


def _loss(weight: Tensor, grid: Grid, codes: Tensor, h: Tensor) -> float:
    return float(_row_loss(weight, grid, codes, h).sum())


METHOD = Method("decoupleq", "decoupleQ (2404.12759): codes and scales in turn, from GPTQ's", "gram", Settings, solve)
