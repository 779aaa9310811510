"""Sharing out a budget: which option for every item, at the least total loss. One solver a file.

All solvers are ``solve(problem, *, seed=0) -> Allocation``; some take more options. ``SOLVERS`` is the list users see.
"""

from __future__ import annotations

from typing import Protocol

from secateur.allocation import dynamic, evolutionary, exhaustive, greedy, integer
from secateur.allocation.problem import Allocation, Choice, Item, Option, Problem, Resource, single


class Solver(Protocol):
    """Raises BudgetError, naming the smallest reachable cost, when no choice fits the budgets."""

    def __call__(self, problem: Problem, *, seed: int = 0) -> Allocation: ...


SOLVERS: dict[str, Solver] = {
    "greedy": greedy.solve,
    "dynamic": dynamic.solve,
    "integer": integer.solve,
    "evolutionary": evolutionary.solve,
    "exhaustive": exhaustive.solve,
}

__all__ = ["SOLVERS", "Allocation", "Choice", "Item", "Option", "Problem", "Resource", "Solver", "single"]
