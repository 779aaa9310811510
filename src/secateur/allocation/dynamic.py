"""Dynamic programming over the units of the budgets spent so far.

    best[0][s]   = 0 at s = 0, else infinite                 s: units spent, one number per resource
    best[i+1][s] = min over options o of best[i][s - cost(i, o)] + loss(i, o)

Before, each item's smallest cost is set aside and what remains divided by its common divisor: neither changes the
answer. If the table would still have more than ``cells`` cells, costs are rounded up to multiples of a quantum, so
budgets stay kept, and the answer is at least as good as the optimum for budgets smaller by (items + 1) (quantum - 1).
Exact resources are never rounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.allocation.feasible import feasible
from secateur.allocation.problem import Allocation, Problem
from secateur.errors import BudgetError, UsageError

CELLS = 1_000_000


@dataclass(frozen=True, slots=True)
class _Scaled:
    """``cost`` (options, resources) and ``budget`` in units of the table; ``quantum``: cost units one of them stands
    for where costs were rounded, else 1; ``unit``: the common divisor.
    """

    cost: NDArray[np.int64]
    budget: NDArray[np.int64]
    quantum: NDArray[np.int64]
    unit: NDArray[np.int64]


def solve(problem: Problem, *, seed: int = 0, cells: int = CELLS) -> Allocation:
    """The best choice; ``note`` states the error where costs were rounded. ``seed`` is not needed.

    Raises BudgetError when no choice fits (or none fits the rounded costs), UsageError for tables too large.
    """
    feasible(problem)
    scaled = _scale(problem, cells)
    if scaled is None:
        raise BudgetError("the exact budgets lie between reachable totals")  # feasible() has said so already
    choice = _run(problem, scaled)
    if choice is None:
        raise BudgetError("no choice fits the budgets once costs are rounded", hint="use the solver 'integer'")
    slack = (len(problem.items) + 1) * (scaled.quantum - 1) * scaled.unit
    if not slack.any():
        return problem.answer(choice, optimal=True)
    less = ", ".join(f"{s:,} {r.name}" for s, r in zip(slack, problem.resources, strict=True) if s)
    return problem.answer(choice, note=f"costs were rounded up: as good as the optimum for budgets smaller by {less}")


def _scale(problem: Problem, cells: int) -> _Scaled | None:
    flat = problem.flat
    least = np.minimum.reduceat(flat.cost, flat.first)
    cost, budget = flat.cost - least[flat.item], flat.budget - least.sum(0)
    unit = np.maximum(1, np.gcd.reduce(cost, axis=0))
    if (flat.exact & (budget % unit != 0)).any():
        return None
    cost, budget = cost // unit, budget // unit
    quantum = np.ones_like(unit)
    while True:
        scaled = _rounded(problem, cost, budget, quantum, unit)
        if math.prod(int(b) + 1 for b in scaled.budget) <= cells:
            return scaled
        width = np.where(flat.exact, -1, scaled.budget)
        widest = int(width.argmax())
        if width[widest] < 1:
            raise UsageError(
                f"dynamic programming needs a table of more than {cells:,} cells for the exact budgets",
                hint="use the solver 'integer'",
            )
        quantum[widest] *= 2


def _rounded(
    problem: Problem,
    cost: NDArray[np.int64],
    budget: NDArray[np.int64],
    quantum: NDArray[np.int64],
    unit: NDArray[np.int64],
) -> _Scaled:
    """Costs up, budgets down, and no budget above what all items can take together."""
    up = -(-cost // quantum)
    most = np.maximum.reduceat(up, problem.flat.first).sum(0)
    return _Scaled(up, np.minimum(budget // quantum, most), quantum.copy(), unit)


def _run(problem: Problem, scaled: _Scaled) -> list[int] | None:
    shape = tuple(int(b) + 1 for b in scaled.budget)
    best = np.full(shape, np.inf)
    best[(0,) * len(shape)] = 0.0
    taken: list[NDArray[np.int16]] = []
    for i, item in enumerate(problem.items):
        reach, which = np.full(shape, np.inf), np.zeros(shape, dtype=np.int16)
        for o, option in enumerate(item.options):
            cost = scaled.cost[problem.flat.first[i] + o]
            if (cost > scaled.budget).any():
                continue
            to = tuple(slice(int(c), None) for c in cost)
            source = best[tuple(slice(0, n - int(c)) for n, c in zip(shape, cost, strict=True))] + option.loss
            better = source < reach[to]
            reach[to] = np.where(better, source, reach[to])
            which[to] = np.where(better, o, which[to])
        best, taken = reach, [*taken, which]
    return _trace(problem, scaled, best, taken)


def _trace(
    problem: Problem, scaled: _Scaled, best: NDArray[np.float64], taken: list[NDArray[np.int16]]
) -> list[int] | None:
    """Back from the best final cell; exact resources end at their budget."""
    ends = np.where(problem.flat.exact, scaled.budget, 0)
    window = best[tuple(slice(int(e), None) for e in ends)]
    if not np.isfinite(window.min()):
        return None
    at = np.array(np.unravel_index(int(window.argmin()), window.shape)) + ends
    choice = [0] * len(problem.items)
    for i in reversed(range(len(problem.items))):
        choice[i] = int(taken[i][tuple(at)])
        at = at - scaled.cost[problem.flat.first[i] + choice[i]]
    return choice
