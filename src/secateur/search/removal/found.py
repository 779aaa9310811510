"""What a removal search is asked with and comes back with, and two ways of walking that several methods share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from secateur.allocation.problem import Choice
from secateur.anatomy.anatomy import Anatomy
from secateur.pruning.removed import Unit
from secateur.search.removal.masked import Measure
from secateur.search.removal.places import NOTHING, Ground, Removal


class Work(Protocol):
    """Measures removals: :class:`Masked` with the model in memory, or an arena of a search with its journal."""

    @property
    def anatomy(self) -> Anatomy: ...

    @property
    def batches(self) -> Sequence[Any]:
        """Parts of the text, of which a cost may read only some."""
        ...

    def removal(self, units: Collection[Unit]) -> Removal:
        """``units`` in their fewest."""
        ...

    def costs(
        self, trials: Sequence[Collection[Unit]], *, base: Collection[Unit] = (), batches: Sequence[int] | None = None
    ) -> Mapping[Measure, Tensor]:
        """Per measure the cost of every trial, (trials,); see :meth:`Masked.costs`."""
        ...

    def influence(self, units: Sequence[Unit]) -> Tensor:
        """How far each unit turns the stream, (units,); see :meth:`Masked.influence`."""
        ...


#: Told what was reached: a line for people, and how many trials were measured so far.
Watch = Callable[[str, int], None]


def silent(text: str, trials: int) -> None:
    """Watches nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing more is gone; ``cost``: what the search measured after it."""

    gone: str
    cost: float

    def to_json(self) -> dict[str, Any]:
        return {"gone": self.gone, "cost": self.cost}


@dataclass(frozen=True, slots=True)
class Found:
    """``removal`` with its ``cost`` by ``measure`` on the calibration text; ``trials`` measured on the way."""

    removal: Removal
    measure: Measure
    cost: float
    trials: int
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "removed": [str(u) for u in sorted(self.removal)],
            "measure": self.measure,
            "cost": self.cost,
            "trials": self.trials,
            "steps": [s.to_json() for s in self.steps],
            "notes": list(self.notes),
            **self.details,
        }


def found(work: Work, removal: Removal, measure: Measure, trials: int = 0, **more: Any) -> Found:
    """A result whose cost is measured on all text."""
    return Found(removal, measure, float(work.costs([removal])[measure][0]), trials, **more)


def greedy(
    work: Work,
    ground: Ground,
    measure: Measure,
    *,
    already: Removal = NOTHING,
    watch: Watch = silent,
) -> Found:
    """Remove the level that costs least, measure the others again without it, until the budget is kept.

    A layer may still go after its scan; both steps count. ``already``: what went before this search. Raises
    BudgetError when nothing more may go.
    """
    choice, trials, steps = ground.nothing, 0, list[Step]()
    while not ground.fits(choice):
        base = work.removal(already | ground.removal(choice))
        options = {c: work.removal(already | ground.removal(c)) for c in ground.raised(choice)}
        options = {c: r for c, r in options.items() if r != base and ground.can_say(r)}
        if not options:
            raise ground.short(choice)
        costs = work.costs(list(options.values()), base=base)[measure]
        best = int(costs.argmin())
        trials += len(options)
        taken = list(options)[best]
        steps.append(Step(_risen(ground, choice, taken), float(costs[best])))
        choice = taken
        watch(f"{len(steps)} gone, last {steps[-1].gone}: {measure} {steps[-1].cost:.4f}", trials)
    removal = work.removal(already | ground.removal(choice))
    return found(work, removal, measure, trials, steps=tuple(steps))


def one_shot(ground: Ground, scores: Sequence[Sequence[float]] | Tensor) -> Choice:
    """Remove levels from the lowest score on, each if the config can say the rest, until the budget is kept.

    ``scores``: per place one number per level; a place's levels go in their order. Raises BudgetError when it cannot.
    """
    choice = ground.nothing
    while not ground.fits(choice):
        options = [c for c in ground.raised(choice) if ground.allowed(c)]
        if not options:
            raise ground.short(choice)
        choice = min(options, key=lambda c: _next_score(choice, c, scores))
    return choice


def _next_score(before: Choice, after: Choice, scores: Any) -> float:
    i = next(i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b)
    return float(scores[i][after[i] - 1])


def _risen(ground: Ground, before: Choice, after: Choice) -> str:
    i = next(i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b)
    return str(ground.places[i].levels[after[i] - 1])


__all__ = ["Found", "Step", "Watch", "Work", "found", "greedy", "one_shot", "silent"]
