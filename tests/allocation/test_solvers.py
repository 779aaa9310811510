"""Every solver against enumeration: the exact ones find the optimum, all of them keep the budgets."""

from __future__ import annotations

import math
import re
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.allocation import SOLVERS, Problem, dynamic, evolutionary, single
from secateur.allocation.exhaustive import MAX_CHOICES
from secateur.errors import BudgetError, UsageError

from .problems import QUICK, every, optimum, problems

EXACT = ["exhaustive", "dynamic", "integer"]


@QUICK
@given(problem=problems())
@pytest.mark.parametrize("name", EXACT)
def test_exact_solvers_find_what_enumeration_finds(name: str, problem: Problem) -> None:
    best = optimum(problem)
    if math.isinf(best):
        with pytest.raises(BudgetError):
            SOLVERS[name](problem)
        return
    found = SOLVERS[name](problem)
    assert found.optimal and not found.note
    assert found.loss == best == problem.loss(found.choice)
    assert problem.fits(found.choice) and found.cost == problem.cost(found.choice)


@QUICK
@given(problem=problems())
@pytest.mark.parametrize("name", ["greedy", "evolutionary"])
def test_the_others_fit_whenever_something_does(name: str, problem: Problem) -> None:
    best = optimum(problem)
    solve = SOLVERS["greedy"] if name == "greedy" else partial(evolutionary.solve, generations=8, offspring=6)
    if math.isinf(best):
        with pytest.raises(BudgetError):
            solve(problem)
        return
    found = solve(problem)
    assert problem.fits(found.choice) and found.loss >= best and not found.optimal
    assert solve(problem) == found  # deterministic


@QUICK
@given(problem=problems(most_resources=1, exact=False))
def test_no_single_step_improves_the_greedy_answer(problem: Problem) -> None:
    if not every(problem):
        return
    found = SOLVERS["greedy"](problem)
    for i, item in enumerate(problem.items):
        for o in range(len(item.options)):
            other = (*found.choice[:i], o, *found.choice[i + 1 :])
            assert not problem.fits(other) or problem.loss(other) >= found.loss


@QUICK
@given(st.data())
def test_greedy_misses_the_relaxed_optimum_by_one_step_at_most(data: st.DataObject) -> None:
    """On convex curves of equal steps marginal loss per cost is not only good but best."""
    curves = data.draw(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=4))
    items = {}
    for n, steps in enumerate(curves):
        losses = np.r_[0, -np.cumsum(sorted(steps, reverse=True))]
        items[str(n)] = [(c, float(v)) for c, v in enumerate(losses)]
    problem = single(items, "units", data.draw(st.integers(0, 12)))
    assert SOLVERS["greedy"](problem).loss == optimum(problem)


@QUICK
@given(problem=problems(most_resources=1, exact=False), cells=st.integers(2, 12))
def test_rounded_costs_stay_within_their_stated_error(problem: Problem, cells: int) -> None:
    if not every(problem):
        return
    found = dynamic.solve(problem, cells=cells)
    assert problem.fits(found.choice)
    assert found.optimal == (not found.note)
    less = int(re.search(r"smaller by ([\d,]+) r0", found.note)[1].replace(",", "")) if found.note else 0  # type: ignore[index]
    resource = problem.resources[0]
    smaller = Problem(problem.items, (type(resource)(resource.name, resource.budget - less),))
    assert optimum(problem) <= found.loss <= optimum(smaller)


@QUICK
@given(problem=problems(exact=False, most_resources=1))
def test_the_smallest_reachable_cost_is_named(problem: Problem) -> None:
    least = sum(min(o.cost[0] for o in i.options) for i in problem.items)
    for solve in SOLVERS.values():
        # those that can be met are the business of the other tests
        if problem.resources[0].budget < least:
            with pytest.raises(BudgetError, match=f"smallest reachable is {least:,}"):
                solve(problem)


def test_budgets_that_only_fail_together_say_what_they_need() -> None:
    items = {"a": [(0, 0.0)], "b": [(0, 0.0)]}
    base = single(items, "x", 0)
    item = base.items[0]
    pair = type(item)("a", tuple(type(item.options[0])(c, 0.0) for c in ((10, 2), (2, 10))))
    resource = type(base.resources[0])
    problem = Problem((pair,), (resource("bytes", 4), resource("cache", 5)))
    for name in EXACT:
        with pytest.raises(BudgetError, match=r"takes 2 of them: 2 bytes, 10 cache"):
            SOLVERS[name](problem)
    exact = Problem((pair,), (resource("bytes", 7, exact=True), resource("cache", 99)))
    with pytest.raises(BudgetError, match="contradict"):
        SOLVERS["integer"](exact)
    gap = single({"a": [(0, 0.0), (4, 0.0)], "b": [(0, 0.0), (4, 0.0)]}, "blocks", 5)
    gap = Problem(gap.items, (resource("blocks", 5, exact=True),))
    with pytest.raises(BudgetError, match="4 below and 8 above"):
        SOLVERS["greedy"](gap)


def test_large_numbers_stay_exact() -> None:
    """Bytes of a large model: floating point inside the solver must not leak into the budget."""
    rng = np.random.default_rng(0)
    items = {str(i): [(int(c), float(-c)) for c in rng.integers(10**9, 10**10, 3)] for i in range(6)}
    budget = sum(sorted(c for c, _ in o)[1] for o in items.values())
    problem = single(items, "bytes", budget)
    found = SOLVERS["integer"](problem)
    assert problem.fits(found.choice)
    assert found.loss == pytest.approx(optimum(problem), rel=1e-6)
    assert 0 <= budget - problem.cost(dynamic.solve(problem).choice)[0] < budget * 1e-3


def test_bad_problems_say_what_is_wrong() -> None:
    with pytest.raises(UsageError, match="at least one item"):
        Problem((), ())
    with pytest.raises(UsageError, match="whole numbers"):
        single({"a": [(1.5, 0.0)]}, "bytes", 3)  # type: ignore[list-item]
    with pytest.raises(UsageError, match="finite"):
        single({"a": [(1, math.nan)]}, "bytes", 3)
    with pytest.raises(UsageError, match="no options"):
        single({"a": []}, "bytes", 3)
    with pytest.raises(UsageError, match="64-bit"):
        single({"a": [(2**62, 0.0)]}, "bytes", 3)
    many = single({str(i): [(0, 0.0), (1, 0.0)] for i in range(30)}, "bytes", 3)
    assert MAX_CHOICES < 2**30
    with pytest.raises(UsageError, match="too many"):
        SOLVERS["exhaustive"](many)
