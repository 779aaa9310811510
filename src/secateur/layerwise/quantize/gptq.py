"""GPTQ (Frantar et al., arXiv 2210.17323): round column after column, later columns make up for the error.

    order     columns as they are, or by diag(H) descending ("activation": the loudest inputs first, while there is
              most left to make up for them)
    scales    of a group from its weights as they are when the sweep reaches it, or all from the start ("static").
              By order of activation they are static, so that no index of groups has to be stored.

Shapes: W (m, d), H = C + damping (d, d). Differences from known code: double precision throughout; blocks end where
groups end, so the blocked sweep equals the plain one; the prediction of the error is returned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from secateur.layerwise.base import Method, Problem, Solution
from secateur.layerwise.gram import DAMP
from secateur.layerwise.quantize.grids import Format, Grid, Search, fit
from secateur.layerwise.quantize.packed import solution
from secateur.layerwise.quantize.rtn import grid_of
from secateur.layerwise.sweep import Settle, sweep

BLOCK = 128


@dataclass(frozen=True, slots=True)
class Settings:
    """``order``: "activation" or "none"; ``static``: scales fixed before the sweep."""

    bits: int = 4
    group: int = 128
    symmetric: bool = True
    search: Search = "mse"
    order: Literal["activation", "none"] = "activation"
    static: bool = False
    damp: float = DAMP


def solve(problem: Problem, settings: Settings) -> Solution:
    """Sweep over the columns; ``notes["sweep"]`` is the error the sweep itself found, with damping."""
    form = Format(settings.bits, settings.group, settings.symmetric)
    codes, grid, loss = quantise(problem, settings, form)
    return solution(problem, codes, grid, form, sweep=loss)


def quantise(problem: Problem, settings: Settings, form: Format) -> tuple[Tensor, Grid, float]:
    """(codes (m, d), grid of (m, groups), sum of squared errors of the sweep)."""
    weight = problem.fast
    m, d = weight.shape
    width = form.width(d)
    ordered = settings.order == "activation"
    order = problem.gram.loudest(settings.damp) if ordered else torch.arange(d)
    factor = problem.gram.sweep(settings.damp, loudest=ordered, dtype=problem.working)
    if ordered or settings.static or width == d:
        grid = grid_of(problem, form, settings.search)
        settle, step, block = _static(grid, order, width, weight.dtype), 1, BLOCK
    else:
        grid = Grid(weight.new_ones(m, d // width), weight.new_zeros(m, d // width), form.low, form.high)
        settle, step, block = _moving(problem, grid, form, settings.search, width), width, _aligned(width)
    swept, loss = sweep(weight[:, order], factor, settle, step=step, block=block)
    values = torch.empty_like(swept)
    values[:, order] = swept
    codes = grid.codes(values.reshape(m, -1, width)).reshape(m, d)
    return codes, grid, loss


def _aligned(width: int) -> int:
    """A block that ends where groups end: a whole number of groups, or one group."""
    return max(1, BLOCK // width) * width


def _static(grid: Grid, order: Tensor, width: int, dtype: torch.dtype) -> Settle:
    groups = (order // width).tolist()
    columns = [grid.column(g, dtype) for g in range(grid.scale.shape[1])]
    return lambda j, rest: columns[groups[j]](rest[0])


def _moving(problem: Problem, grid: Grid, form: Format, search: Search, width: int) -> Settle:
    """Fills ``grid`` as the sweep goes."""
    loud = problem.gram.diagonal
    snap: Callable[[Tensor], Tensor] = torch.clone

    def settle(j: int, rest: Tensor) -> Tensor:
        nonlocal snap
        if j % width == 0:
            g = j // width
            weights = loud[j : j + width] if search == "gram" else None
            found = fit(rest[:width].T.double(), form, search=search, weights=weights, dtype=problem.dtype)
            grid.scale[:, g], grid.zero[:, g] = found.scale, found.zero
            snap = grid.column(g, rest.dtype)
        return snap(rest[0])

    return settle


METHOD = Method("gptq", "GPTQ (2210.17323): round column by column, the rest makes up for it", "gram", Settings, solve)
