"""What is to be shared out: items with options, and the resources that options cost.

    minimise    sum over items i of loss(i, o_i)          o_i: the option chosen for item i
    subject to  sum over items i of cost(i, o_i)[r]  <= budget_r,  or == budget_r where a resource is exact

the multiple-choice knapsack problem with several resources. Costs are whole numbers (parameters, bytes, blocks), so
that every statement about a budget is exact. An exact resource is how further constraints are said: "eight blocks go,
three of them attention" are two exact resources that count blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from secateur.errors import UsageError

#: Index of the option chosen for each item.
Choice = tuple[int, ...]
_MOST = 2**62


@dataclass(frozen=True, slots=True)
class Resource:
    """``exact``: the budget must be used up to the last unit, not only kept."""

    name: str
    budget: int
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """``cost``: one whole number per resource of the problem. ``loss``: any finite number."""

    cost: tuple[int, ...]
    loss: float
    name: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """Options in the order of their level: a mutation goes one step up or down this list."""

    name: str
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Allocation:
    """A solver's answer. ``optimal``: proven to be, for additive losses. ``note``: what limits that proof."""

    choice: Choice
    loss: float
    cost: tuple[int, ...]
    optimal: bool = False
    note: str = ""


@dataclass(frozen=True)
class Problem:
    """Raises UsageError when costs do not fit the resources, or numbers are not usable."""

    items: tuple[Item, ...]
    resources: tuple[Resource, ...]

    def __post_init__(self) -> None:
        if not self.items or not self.resources:
            raise UsageError("an allocation needs at least one item and one resource")
        for item in self.items:
            if not item.options:
                raise UsageError(f"item {item.name!r} has no options to choose from")
            for option in item.options:
                _check(item, option, self.resources)
        if any(sum(max(abs(o.cost[r]) for o in i.options) for i in self.items) >= _MOST for r in self._rows):
            raise UsageError("the costs add up beyond 64-bit integers; measure them in a larger unit")

    @property
    def _rows(self) -> range:
        return range(len(self.resources))

    def cost(self, choice: Sequence[int]) -> tuple[int, ...]:
        """What ``choice`` takes of every resource, exactly."""
        taken = [item.options[o].cost for item, o in zip(self.items, choice, strict=True)]
        return tuple(sum(c[r] for c in taken) for r in self._rows)

    def loss(self, choice: Sequence[int]) -> float:
        """Sum of the losses of ``choice``."""
        return math.fsum(item.options[o].loss for item, o in zip(self.items, choice, strict=True))

    def fits(self, choice: Sequence[int]) -> bool:
        """Whether ``choice`` keeps every budget."""
        return all(
            c == r.budget if r.exact else c <= r.budget for c, r in zip(self.cost(choice), self.resources, strict=True)
        )

    def answer(self, choice: Sequence[int], *, optimal: bool = False, note: str = "") -> Allocation:
        """``choice`` with its cost and additive loss."""
        chosen = tuple(int(o) for o in choice)
        return Allocation(chosen, self.loss(chosen), self.cost(chosen), optimal, note)

    @cached_property
    def flat(self) -> Flat:
        """All options in one list, for arithmetic on arrays."""
        counts = [len(i.options) for i in self.items]
        options = [o for i in self.items for o in i.options]
        return Flat(
            first=np.r_[0, np.cumsum(counts)[:-1]].astype(np.int64),
            item=np.repeat(np.arange(len(counts)), counts),
            cost=np.array([o.cost for o in options], dtype=np.int64),
            loss=np.array([o.loss for o in options], dtype=np.float64),
            budget=np.array([r.budget for r in self.resources], dtype=np.int64),
            exact=np.array([r.exact for r in self.resources], dtype=np.bool_),
        )


@dataclass(frozen=True, slots=True)
class Flat:
    """m options of all items: ``item`` (m,), ``cost`` (m, resources), ``loss`` (m,); ``first`` (items,): where each
    item begins; ``budget``, ``exact`` (resources,).
    """

    first: NDArray[np.int64]
    item: NDArray[np.int64]
    cost: NDArray[np.int64]
    loss: NDArray[np.float64]
    budget: NDArray[np.int64]
    exact: NDArray[np.bool_]

    def allowed(self, cost: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which totals (..., resources) keep every budget; shape (...)."""
        return np.asarray(np.where(self.exact, cost == self.budget, cost <= self.budget).all(-1))


def single(items: Mapping[str, Sequence[tuple[int, float]]], resource: str, budget: int) -> Problem:
    """The usual case: (cost, loss) of every option of every item, and one budget."""
    made = tuple(Item(n, tuple(Option((cost,), loss) for cost, loss in options)) for n, options in items.items())
    return Problem(made, (Resource(resource, budget),))


def _check(item: Item, option: Option, resources: Sequence[Resource]) -> None:
    place = f"item {item.name!r}, option {option.name or item.options.index(option)!r}"
    if len(option.cost) != len(resources):
        names = ", ".join(r.name for r in resources)
        raise UsageError(f"{place}: cost {option.cost}, expected one number for each of {names}")
    if not all(isinstance(c, int) and not isinstance(c, bool) for c in option.cost):
        raise UsageError(f"{place}: cost {option.cost}, expected whole numbers")
    if not math.isfinite(option.loss):
        raise UsageError(f"{place}: loss {option.loss}, expected a finite number; leave out options that cannot be had")
