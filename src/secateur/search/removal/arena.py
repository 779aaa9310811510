"""Methods that remove layers, as strategies of a search: within its budget, measured and written down by its arena.

What is measured goes through :meth:`Arena.score`, so it is journalled, shared by processes and on the Pareto front; a
layer that goes is skipped in memory. Costs of layers are taken to add up where the methods share them out; whether a
choice keeps the budget is asked of the budget itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from secateur.allocation.problem import Choice, Item, Option, Problem, Resource
from secateur.errors import UsageError
from secateur.importance.depth import layer_scores
from secateur.pruning.removed import LAYER, Unit, canonical, split
from secateur.search.arena import Arena
from secateur.search.candidates import Candidate
from secateur.search.outcome import Outcome
from secateur.search.removal.found import Found
from secateur.search.removal.masked import Masked, Measure
from secateur.search.removal.places import Ground, Place, Removal
from secateur.search.stages import Stage

if TYPE_CHECKING:
    from secateur.search.strategies.base import Strategy

_NANO = 1e9


class Measured:
    """:class:`Work` on an arena. A batch is ``bench.batch`` windows, as many as the dearest zero-shot stage reads."""

    def __init__(self, arena: Arena) -> None:
        self.arena, self.anatomy = arena, arena.model.anatomy
        windows = arena.stage("depth", arena.effort.tokens[-1]).windows
        size = arena.bench.batch
        self.batches = [windows[i : i + size] for i in range(0, len(windows), size)]

    def removal(self, units: Collection[Unit]) -> Removal:
        """``units`` in their fewest."""
        return canonical(units, self.anatomy)

    def candidate(self, units: Collection[Unit]) -> Candidate:
        """The whole model without these layers."""
        return Candidate(self.arena.space.whole().sizes, split(units, self.anatomy)[0])

    def costs(
        self, trials: Sequence[Collection[Unit]], *, base: Collection[Unit] = (), batches: Sequence[int] | None = None
    ) -> dict[Measure, Tensor]:
        """KL and loss (not its rise) of every trial, (trials,) float64."""
        chosen = self.batches if batches is None else [self.batches[b] for b in batches]
        stage = Stage("depth", tuple(sorted(i for part in chosen for i in part)))
        candidates = [self.candidate(t) for t in trials]
        kl = self.arena.score(candidates, stage)
        nll = [self.arena.scores[c, stage].nll for c in candidates]
        return {"kl": torch.tensor(kl, dtype=torch.float64), "nll": torch.tensor(nll, dtype=torch.float64)}

    def influence(self, units: Sequence[Unit]) -> Tensor:
        """Block influence, read from the statistics of the search."""
        assert self.arena.bench.stats is not None
        scores = layer_scores(self.anatomy, self.arena.bench.stats, "block-influence")
        return torch.tensor([scores[u.layer] for u in units], dtype=torch.float64)


class Budgeted(Ground):
    """Layers of a space (``only``: of these), and its budget."""

    def __init__(self, arena: Arena, only: Collection[int] | None = None) -> None:
        self.space = arena.space
        if not self.space.order:
            raise UsageError("this strategy removes layers, and none may go", hint="leave out --keep-depth")
        order = sorted(i for i in self.space.order if only is None or i in only)
        layers = [Place(str(u := Unit(i, LAYER)), (u,)) for i in order]
        super().__init__(arena.model, layers, _problem(arena, layers))

    def fits(self, choice: Choice) -> bool:
        """Whether what is left keeps every limit."""
        layers = split(self.removal(choice), self.anatomy)[0]
        return bool(self.space.fits(Candidate(self.space.whole().sizes, layers)))

    def can_say(self, removal: Removal) -> bool:
        """As of any ground, and enough layers are left."""
        return len(split(removal, self.anatomy)[0]) >= self.space.least_layers and super().can_say(removal)


def _problem(arena: Arena, layers: Sequence[Place]) -> Problem:
    """One item per layer that may go: what it adds to each limited resource while it is there, in whole units."""
    space, n = arena.space, arena.model.anatomy.n_layers
    sizes, every = space.sizes(space.whole()), frozenset(range(n))
    resources, costs = [], [list[int]() for _ in layers]
    for limit in space.budget.limits:
        unit = _NANO if limit.resource.unit == "seconds" else 1
        whole, rest = float(limit.meter(sizes, every)), 0.0
        for i, place in enumerate(layers):
            own = max(0.0, whole - float(limit.meter(sizes, every - {place.levels[0].layer})))
            costs[i].append(math.floor(own * unit))
            rest += own
        resources.append(Resource(limit.resource.name, math.ceil((limit.amount - (whole - rest)) * unit)))
    items = [
        Item(p.name, (Option(tuple(c), 0.0), Option((0,) * len(c), 0.0))) for p, c in zip(layers, costs, strict=True)
    ]
    return Problem(tuple(items), tuple(resources))


def outcome(arena: Arena, found: Found) -> Outcome:
    """What was found, measured on all the text of the dearest zero-shot stage."""
    work = Measured(arena)
    winner = work.candidate(found.removal)
    stage = arena.stage("zero-shot", arena.effort.tokens[-1])
    arena.score([winner], stage)
    return Outcome(winner, stage, notes=found.notes, details=found.to_json())


def in_memory(arena: Arena) -> Masked:
    """The arena's model and the text of its dearest zero-shot stage, for what an arena does not measure."""
    bench = arena.bench
    windows = bench.windows[list(arena.stage("depth", arena.effort.tokens[-1]).windows)]
    return Masked(arena.model, windows, batch=bench.batch, whole=bench.whole)


def strategy(find: Callable[[Measured, Budgeted, Arena], Found]) -> Strategy:
    """A method as a strategy of a search."""

    def search(arena: Arena) -> Outcome:
        return outcome(arena, find(Measured(arena), Budgeted(arena), arena))

    return search


__all__ = ["Budgeted", "Measured", "in_memory", "outcome", "strategy"]
