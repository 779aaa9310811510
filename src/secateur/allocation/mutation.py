"""EvoPress' level switch (arXiv 2410.14649): one item goes a level up, another a level down, and no budget is broken.

Where all levels are equally far apart in cost, as in EvoPress, totals do not change at all; in general the pair is
drawn among those that keep exact budgets to the unit and the others from above. A step that needs no partner because
a budget has room is taken alone half of the time, so that room is used up. k switches make a mutation,
k = min(U1, U2) with U1, U2 uniform on {1, 2, 3}.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from secateur.allocation.problem import Choice, Problem

_MOST_SWITCHES = 3


def mutate(problem: Problem, choice: Choice, rng: Generator) -> Choice:
    """A neighbour of ``choice``, which must fit, that fits too; ``choice`` itself where there is none."""
    for _ in range(int(rng.integers(1, _MOST_SWITCHES + 1, size=2).min())):
        choice = switch(problem, choice, rng)
    return choice


def switch(problem: Problem, choice: Choice, rng: Generator) -> Choice:
    """One level switch, drawn uniformly over the first step, then over the partners it allows."""
    steps = _steps(problem, choice)
    if not len(steps):
        return choice
    cost = _change(problem, choice, steps)
    now = np.array(problem.cost(choice))
    for first in rng.permutation(len(steps)):
        alone = bool(problem.flat.allowed(now + cost[first]))
        partners = problem.flat.allowed(now + cost[first] + cost)
        # another item, in the other direction
        partners &= (steps[:, 0] != steps[first, 0]) & (steps[:, 1] != steps[first, 1])
        if alone and (not partners.any() or rng.random() < 0.5):
            return _taken(choice, steps[first])
        if partners.any():
            return _taken(_taken(choice, steps[first]), steps[rng.choice(np.flatnonzero(partners))])
    return choice


def _steps(problem: Problem, choice: Choice) -> NDArray[np.int64]:
    """(item, +1 or -1) for every level that can go up or down; shape (steps, 2)."""
    found = [
        (i, d)
        for i, (item, o) in enumerate(zip(problem.items, choice, strict=True))
        for d in (-1, 1)
        if 0 <= o + d < len(item.options)
    ]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _change(problem: Problem, choice: Choice, steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cost of every step, (steps, resources)."""
    flat = problem.flat
    at = flat.first[steps[:, 0]] + np.array(choice)[steps[:, 0]]
    return np.asarray(flat.cost[at + steps[:, 1]] - flat.cost[at])


def _taken(choice: Choice, step: NDArray[np.int64]) -> Choice:
    out = list(choice)
    out[int(step[0])] += int(step[1])
    return tuple(out)
