"""Evolutionary search (EvoPress, arXiv 2410.14649): (1 + lambda) with level switches and selection in stages.

One parent. A generation makes ``offspring`` mutants, from which :mod:`.selection` takes the next parent. The loss may
be any function of the whole choice; without ``stages`` it is the additive one, and the answer is compared with other
solvers in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.random import Generator

from secateur.allocation.feasible import feasible
from secateur.allocation.mutation import mutate
from secateur.allocation.problem import Allocation, Choice, Problem
from secateur.allocation.selection import Stage as StageOf
from secateur.allocation.selection import select
from secateur.errors import UsageError

Stage: TypeAlias = StageOf[Choice]
Watch = Callable[[int, Choice, float], None]
_SHUFFLE = 8  # mutations between random initial choices, per item


def solve(
    problem: Problem,
    *,
    seed: int = 0,
    generations: int = 200,
    offspring: int = 32,
    stages: Sequence[Stage] | None = None,
    start: Choice | None = None,
    initial: int = 1,
    watch: Watch = lambda generation, parent, loss: None,
) -> Allocation:
    """The last parent, whose ``loss`` is what the last stage measured.

    ``start``: where to begin, else some choice that fits. ``initial``: random choices that compete for the first
    parent. ``watch`` is called after every generation. Deterministic under ``seed``.
    Raises BudgetError when nothing fits, UsageError when ``start`` does not.
    """
    if start is not None and not problem.fits(start):
        raise UsageError(f"the start {start} costs {problem.cost(start)}, which does not keep the budgets")
    if min(offspring, initial) < 1 or generations < 0:
        given = f"offspring={offspring}, initial={initial}, generations={generations}"
        raise UsageError(f"{given}: expected at least 1, 1 and 0")
    rng = np.random.default_rng(seed)
    levels = [Stage(1, _additive(problem))] if stages is None else list(stages)
    parent = feasible(problem) if start is None else start
    others = [_random(problem, parent, rng) for _ in range(initial - 1)]
    parent, loss = select(levels, parent, others, 0)
    for generation in range(1, generations + 1):
        children = [mutate(problem, parent, rng) for _ in range(offspring)]
        parent, loss = select(levels, parent, children, generation)
        watch(generation, parent, loss)
    return Allocation(parent, loss, problem.cost(parent))


def _additive(problem: Problem) -> Callable[[Sequence[Choice], int], Sequence[float]]:
    return lambda choices, generation: [problem.loss(c) for c in choices]


def _random(problem: Problem, choice: Choice, rng: Generator) -> Choice:
    for _ in range(_SHUFFLE * len(problem.items)):
        choice = mutate(problem, choice, rng)
    return choice
