"""Every choice within the budget: the reference that searches are compared with where there are few places."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from secateur.allocation.problem import Choice
from secateur.errors import UsageError
from secateur.search.removal.arena import strategy
from secateur.search.removal.found import Found, Watch, Work, found, silent
from secateur.search.removal.masked import Measure
from secateur.search.removal.places import Ground

MOST = 20_000
_ALL = 1 << 22


def choices(ground: Ground) -> list[Choice]:
    """All allowed choices that keep the budget. Raises UsageError when there are too many to look at."""
    every = 1
    for place in ground.places:
        every *= len(place.levels) + 1
    if every > _ALL:
        raise UsageError(f"{every:,} choices are too many to look at each", hint="use evopress")
    fitting = [c for c in _product(ground) if ground.fits(c) and ground.allowed(c)]
    if len(fitting) > MOST:
        raise UsageError(f"{len(fitting):,} choices are too many to measure each (the limit is {MOST:,})")
    return fitting


def _product(ground: Ground) -> Iterator[Choice]:
    return itertools.product(*(range(len(p.levels) + 1) for p in ground.places))


def find(work: Work, ground: Ground, *, measure: Measure = "kl", watch: Watch = silent) -> Found:
    """The best of all, the first of equals. Raises BudgetError when none fits."""
    every = choices(ground)
    if not every:
        raise ground.short(tuple(len(p.levels) for p in ground.places))
    costs: list[float] = []
    # choices that differ in their last place only stand together, and share all layers before it
    for _, group in itertools.groupby(every, key=_head):
        same = list(group)
        removals = [ground.removal(c) for c in same]
        base = ground.removal((*_head(same[0]), *ground.nothing[len(_head(same[0])) :]))
        costs += work.costs(removals, base=base)[measure].tolist()
        watch(f"{len(costs)}/{len(every)} choices, best {measure} {min(costs):.4f}", len(costs))
    best = min(range(len(every)), key=lambda i: costs[i])
    return found(work, ground.removal(every[best]), measure, len(every), details={"choices": len(every)})


def _head(choice: Choice) -> Choice:
    """The choice up to its last place that removes something."""
    last = max((i for i, o in enumerate(choice) if o), default=0)
    return choice[:last]


search = strategy(lambda work, ground, arena: find(work, ground))
"""All sets of layers that keep the budget of a search."""
