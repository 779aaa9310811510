"""Random problems small enough to enumerate."""

from __future__ import annotations

import itertools
import math

from hypothesis import settings
from hypothesis import strategies as st

from secateur.allocation import Choice, Item, Option, Problem, Resource

QUICK = settings(deadline=None, database=None, max_examples=30)


@st.composite
def problems(draw: st.DrawFn, *, most_resources: int = 3, exact: bool = True) -> Problem:
    """Up to 5 items of up to 4 options. Losses are whole numbers, so that equal sums are equal."""
    resources = draw(st.integers(1, most_resources))
    cost = st.tuples(*[st.integers(-3, 12)] * resources)
    option = st.builds(Option, cost, st.integers(-20, 20).map(float))
    options = st.lists(option, min_size=1, max_size=4).map(tuple)
    items = draw(st.lists(options, min_size=1, max_size=5))
    limits = [Resource(f"r{i}", draw(st.integers(-5, 45)), exact and draw(st.booleans())) for i in range(resources)]
    return Problem(tuple(Item(f"i{n}", o) for n, o in enumerate(items)), tuple(limits))


def every(problem: Problem) -> list[Choice]:
    """All choices that keep the budgets, by definition."""
    found = []
    for choice in itertools.product(*(range(len(i.options)) for i in problem.items)):
        cost = [sum(i.options[o].cost[r] for i, o in zip(problem.items, choice, strict=True)) for r in
                range(len(problem.resources))]  # fmt: skip
        if all(c == r.budget if r.exact else c <= r.budget for c, r in zip(cost, problem.resources, strict=True)):
            found.append(choice)
    return found


def optimum(problem: Problem) -> float:
    """Least loss by brute force, infinite when nothing fits."""
    return min((problem.loss(c) for c in every(problem)), default=math.inf)


def layers(n: int, drop: int, losses: list[float]) -> Problem:
    """Depth: of ``n`` layers exactly ``drop`` go."""
    items = tuple(Item(str(i), (Option((1,), losses[i], "drop"), Option((0,), 0.0, "keep"))) for i in range(n))
    return Problem(items, (Resource("layers dropped", drop, exact=True),))
