"""Integer programming: the multiple-choice knapsack given to HiGHS (branch and cut), any number of resources.

Losses are scaled to at most 1 an item, so the solver's tolerance of 1e-6 means: optimal to a millionth of the largest
difference between two options of an item.
"""

from __future__ import annotations

import numpy as np

from secateur.allocation.feasible import feasible
from secateur.allocation.problem import Allocation, Problem
from secateur.allocation.program import Program


def solve(problem: Problem, *, seed: int = 0) -> Allocation:
    """The best choice. ``seed`` is not needed. Raises BudgetError when none fits."""
    flat, program = problem.flat, Program(problem)
    extra = flat.loss - np.minimum.reduceat(flat.loss, flat.first)[flat.item]
    objective = extra / max(float(extra.max()), np.finfo(float).tiny)
    lower = np.where(flat.exact, flat.budget, -np.inf)
    choice = program.solve(objective, lower, flat.budget.astype(float))
    if choice is None:
        feasible(problem)  # says why
        raise AssertionError("the integer solver found nothing, yet a choice fits")
    return problem.answer(choice, optimal=True)
