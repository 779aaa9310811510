"""Round to nearest: every weight to the nearest value of its group's grid. The yardstick of the others.

Paper: none; "RTN" in GPTQ (arXiv 2210.17323), whose range search is the option ``search``.

    W' = snap(W)

Shapes: W (m, d), scales (m, d / g). Difference from known code: scales are rounded to their stored dtype first, and
``search="gram"`` weighs errors by the squared norm of each input.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from secateur.errors import UsageError
from secateur.layerwise.base import Method, Problem, Solution
from secateur.layerwise.quantize.grids import Format, Grid, Search, fit
from secateur.layerwise.quantize.packed import solution


@dataclass(frozen=True, slots=True)
class Settings:
    """``search``: how the range of a grid is found, see :mod:`~secateur.layerwise.quantize.grids`."""

    bits: int = 4
    group: int = 128
    symmetric: bool = True
    search: Search = "mse"


def solve(problem: Problem, settings: Settings) -> Solution:
    """Nearest values; looks at inputs only with ``search="gram"``."""
    form = Format(settings.bits, settings.group, settings.symmetric)
    grid = grid_of(problem, form, settings.search)
    return solution(problem, codes_of(problem.weight, grid), grid, form)


def grid_of(problem: Problem, form: Format, search: Search) -> Grid:
    """The grid of every group of the weight, (m, groups). Raises UsageError for a search by inputs nobody saw."""
    if search == "gram" and not problem.gram.tokens:
        raise UsageError("--search gram looks at activations, and no text is given", hint="give it with --text")
    m, d = problem.weight.shape
    blocks = problem.weight.reshape(m, -1, form.width(d))
    weights = problem.gram.diagonal.reshape(blocks.shape[1:]) if search == "gram" else None
    return fit(blocks, form, search=search, weights=weights, dtype=problem.dtype)


def codes_of(weight: Tensor, grid: Grid) -> Tensor:
    """Codes (m, d) of the nearest values."""
    return grid.codes(weight.reshape(weight.shape[0], grid.scale.shape[1], -1)).reshape(weight.shape)


METHOD = Method("rtn", "round to nearest, with a search for the range", "nothing", Settings, solve)
