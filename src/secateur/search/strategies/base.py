"""What a strategy is: a function that is given an arena and finds a shape.

Price of a new strategy: one file whose body is the method, one line in ``STRATEGIES``, one row in
``tests/search/test_strategies.py``.

A strategy asks ``arena.score(candidates, stage)``, which remembers, writes a journal and spreads over processes; makes
candidates with ``arena.space`` (or has a type of its own); draws from ``arena.rng`` alone; and stops between two calls
when ``arena.goes_on()`` says so. It keeps no state elsewhere: an interrupted search starts again from the beginning
and finds every score it asks for in the journal, so it comes to the same place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from secateur.search.stages import Shape, Stage

if TYPE_CHECKING:
    from secateur.search.arena import Arena


@dataclass(frozen=True, slots=True)
class Agreement:
    """Kendall's tau between two stages over ``count`` candidates that both measured."""

    before: str
    after: str
    tau: float
    count: int

    def to_json(self) -> dict[str, Any]:
        return {"before": self.before, "after": self.after, "tau": self.tau, "count": self.count}


@dataclass(frozen=True, slots=True)
class Outcome:
    """``winner`` by ``stage``. ``agreements``: between the stages it went through. ``notes``: what a person should
    know, such as what stopped the search. ``details``: numbers of this strategy alone, for search.json."""

    winner: Shape
    stage: Stage
    agreements: tuple[Agreement, ...] = ()
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


class Strategy(Protocol):
    """Deterministic under the arena's seed. Raises BudgetError when nothing fits."""

    def __call__(self, arena: Arena) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to spend; strategies take what they know and leave the rest.

    ``initial``: random candidates to begin with. ``generations`` of ``offspring`` each. ``tokens``: of text read at
    each zero-shot stage, rising; the winners of a stage go on to the next. ``finalists``: candidates distilled on
    ``heal`` tokens each before the last choice; 0 tokens: the last zero-shot stage decides. ``repair``: least squares
    before what is measured last.
    """

    initial: int = 16
    generations: int = 20
    offspring: int = 16
    tokens: Sequence[int] = (2048, 8192)
    finalists: int = 4
    heal: int = 16384
    repair: bool = False

    def to_json(self) -> dict[str, Any]:
        names = ("initial", "generations", "offspring", "finalists", "heal", "repair")
        return {**{n: getattr(self, n) for n in names}, "tokens": list(self.tokens)}


__all__ = ["Agreement", "Effort", "Outcome", "Strategy"]
