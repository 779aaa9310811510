"""Marginal loss per cost: from the cheapest choice on, always the step that saves most loss per share of the budgets.

For one resource this walks down the convex hull of every item (Sinha & Zoltners, 1979): optimal for the relaxed
problem, and off by at most the one step that no longer fits. A step may go to any better option. Where a resource is
exact no single step is possible, so pairs of steps that cancel out are taken too; they cost (options)^2 to list.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secateur.allocation.feasible import feasible
from secateur.allocation.problem import Allocation, Flat, Problem

_TOLERANCE = 1e-12


def solve(problem: Problem, *, seed: int = 0) -> Allocation:
    """A choice within the budgets that no single step improves. ``seed`` is not needed: there is nothing random."""
    flat = problem.flat
    chosen = flat.first + np.array(feasible(problem))
    while True:
        cost = flat.cost - flat.cost[chosen][flat.item]  # change of every option's item to that option
        loss = flat.loss - flat.loss[chosen][flat.item]
        slack = flat.budget - flat.cost[chosen].sum(0)
        step = _single(flat, cost, loss, slack)
        if step is None and flat.exact.any():
            step = _pair(flat, cost, loss, slack)
        if step is None:
            return problem.answer(chosen - flat.first)
        chosen[flat.item[step]] = step


def _single(
    flat: Flat, cost: NDArray[np.int64], loss: NDArray[np.float64], slack: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    ok = _fits(flat, cost, slack) & (loss < -_TOLERANCE)
    return _best(flat, cost, loss, np.flatnonzero(ok)[:, None])


def _pair(
    flat: Flat, cost: NDArray[np.int64], loss: NDArray[np.float64], slack: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    ok = _fits(flat, cost[:, None] + cost[None], slack) & (loss[:, None] + loss[None] < -_TOLERANCE)
    ok &= flat.item[:, None] < flat.item[None]
    return _best(flat, cost, loss, np.argwhere(ok))


def _fits(flat: Flat, cost: NDArray[np.int64], slack: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(np.where(flat.exact, cost == 0, cost <= slack).all(-1))


def _best(
    flat: Flat, cost: NDArray[np.int64], loss: NDArray[np.float64], steps: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Of ``steps`` (candidates, options changed together) the one that saves most per share of the budgets it takes."""
    if not len(steps):
        return None
    saved = -loss[steps].sum(1)
    taken = np.maximum(cost[steps].sum(1), 0) / np.maximum(1, np.abs(flat.budget))
    share = taken.sum(-1)
    free = share <= 0
    # what costs nothing comes first, most saved first
    price = np.where(free, np.inf, saved / np.where(free, 1.0, share))
    order = np.lexsort((-saved, -price))
    return np.asarray(steps[order[0]])
