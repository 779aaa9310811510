"""A choice that keeps every budget, or the reason why there is none: where greedy and evolutionary solvers begin."""

from __future__ import annotations

import math

import numpy as np

from secateur.allocation.problem import Choice, Problem, Resource
from secateur.allocation.program import Program
from secateur.errors import BudgetError

_HINT = "raise the budget, or offer cheaper options"


def feasible(problem: Problem) -> Choice:
    """Some choice within the budgets: with one resource the cheapest.

    Raises BudgetError naming the smallest reachable cost (the nearest totals, for an exact resource) when none exists.
    """
    _reachable(problem)
    flat = problem.flat
    cheapest = _cheapest(problem)
    if problem.fits(cheapest):
        return cheapest
    program = Program(problem)
    found = program.solve(np.zeros(program.m), np.where(flat.exact, flat.budget, -np.inf), flat.budget.astype(float))
    if found is None:
        raise _impossible(problem, program)
    return found


def _cheapest(problem: Problem) -> Choice:
    """Per item the option of least share of the budgets, the better of equals."""
    flat = problem.flat
    scale = np.maximum(1, np.abs(flat.budget))
    share = (flat.cost / scale)[:, ~flat.exact].max(-1, initial=-math.inf)
    order = np.lexsort((flat.loss, share, flat.item))
    return tuple(int(o) for o in order[flat.first] - flat.first)


def _reachable(problem: Problem) -> None:
    """Refuse budgets that one resource alone rules out."""
    flat = problem.flat
    least = np.minimum.reduceat(flat.cost, flat.first).sum(0)
    most = np.maximum.reduceat(flat.cost, flat.first).sum(0)
    for r, low, high in zip(problem.resources, least, most, strict=True):
        if low > r.budget:
            raise BudgetError(f"a budget of {_text(r)} cannot be met: the smallest reachable is {low:,}", hint=_HINT)
        if r.exact and high < r.budget:
            raise BudgetError(f"a budget of {_text(r)} cannot be used up: the largest reachable is {high:,}")


def _text(r: Resource) -> str:
    return f"{'exactly ' if r.exact else ''}{r.budget:,} {r.name}"


def _impossible(problem: Problem, program: Program) -> BudgetError:
    """Each budget can be met alone, but not all together."""
    asked = " with ".join(_text(r) for r in problem.resources)
    if len(problem.resources) == 1:
        low, high = _nearest(problem, program)
        return BudgetError(f"a budget of {asked} cannot be met: reachable are {low:,} below and {high:,} above")
    best = program.least_share()
    if best is None:
        return BudgetError(f"budgets of {asked} cannot be met: the exact ones contradict each other", hint=_HINT)
    share, choice = best
    cost = problem.cost(choice)
    reached = ", ".join(f"{c:,} {r.name}" for c, r in zip(cost, problem.resources, strict=True))
    return BudgetError(
        f"budgets of {asked} cannot be met together: the smallest reachable takes {share:.4g} of them: {reached}",
        hint=_HINT,
    )


def _nearest(problem: Problem, program: Program) -> tuple[int, int]:
    """Reachable totals of the one, exact resource around its budget."""
    cost = problem.flat.cost[:, 0].astype(float)
    budget, free = problem.flat.budget.astype(float), np.array([np.inf])
    below, above = program.solve(-cost, -free, budget), program.solve(cost, budget, free)
    assert below is not None and above is not None  # least and largest total lie on either side of the budget
    return problem.cost(below)[0], problem.cost(above)[0]
