"""Every choice there is: the plain reference for the other solvers."""

from __future__ import annotations

import itertools
import math

from secateur.allocation.feasible import feasible
from secateur.allocation.problem import Allocation, Problem
from secateur.errors import UsageError

MAX_CHOICES = 2_000_000


def solve(problem: Problem, *, seed: int = 0) -> Allocation:
    """The best choice within the budgets, the first of equals. Raises UsageError when there are too many to try."""
    count = math.prod(len(i.options) for i in problem.items)
    if count > MAX_CHOICES:
        raise UsageError(
            f"{count:,} choices are too many to try each of them (the limit is {MAX_CHOICES:,})",
            hint="use the solver 'integer' or 'dynamic': both find the optimum too",
        )
    every = itertools.product(*(range(len(i.options)) for i in problem.items))
    best = min((c for c in every if problem.fits(c)), key=problem.loss, default=None)
    if best is None:
        feasible(problem)  # says why
        raise AssertionError("no choice fits, yet one was found")
    return problem.answer(best, optimal=True)
