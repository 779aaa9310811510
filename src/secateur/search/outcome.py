"""What a strategy is told to spend, and what it comes back with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from secateur.search.stages import Shape, Stage


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

    def noting(self, *notes: str) -> Outcome:
        """The same with more to know."""
        return replace(self, notes=(*self.notes, *notes))

    def after(self, agreements: Sequence[Agreement], notes: Sequence[str]) -> Outcome:
        """The same, seen from before the stages that led to it."""
        return replace(self, agreements=(*agreements, *self.agreements), notes=(*notes, *self.notes))


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
