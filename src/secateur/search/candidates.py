"""Candidate shapes: sizes of the axes a search may turn and the layers that stay, each one a plan can take.

A candidate moves by steps. A step turns one dial to its next size that the config can say (two dials, where a relation
of the config ties them), or takes one layer out or back in. Whatever this module hands out keeps every limit of the
budget and can be said by the config; all of it is deterministic under a generator's seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from secateur.anatomy.anatomy import Anatomy
from secateur.anatomy.sizes import expressible
from secateur.errors import ConfigError, InexpressibleError, UsageError
from secateur.model import Model
from secateur.pruning.choose import can_keep
from secateur.pruning.configure import child_config
from secateur.search.budget import Budget
from secateur.search.dials import dials

_MOST_SWITCHES = 3
_PATIENCE = 50


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """``sizes``: (public name, size) of every dial; ``layers``: old indices that stay."""

    sizes: tuple[tuple[str, int], ...]
    layers: tuple[int, ...]

    @property
    def keep(self) -> dict[str, int]:
        """As :func:`secateur.pruning.plan.make_plan` takes it, together with ``layers``."""
        return dict(self.sizes)

    def __str__(self) -> str:
        return ", ".join([*(f"{n}={s}" for n, s in self.sizes), f"layers={len(self.layers)}"])

    def to_json(self) -> dict[str, Any]:
        return {"keep": self.keep, "layers": list(self.layers)}


def from_json(data: Mapping[str, Any]) -> Candidate:
    """Inverse of :meth:`Candidate.to_json`."""
    return Candidate(tuple((str(n), int(s)) for n, s in data["keep"].items()), tuple(int(i) for i in data["layers"]))


class Space:
    """Every candidate of one model within one budget.

    ``axes``: the axes that may change, as in :func:`secateur.search.dials.dials`. ``order``: layers from the least
    important on; only these may go, and all but ``least_layers`` of the model's. None: depth stays as it is.
    """

    def __init__(
        self,
        model: Model,
        budget: Budget,
        *,
        axes: Mapping[str, Sequence[int] | None] | Sequence[str] | None = None,
        order: Sequence[int] | None = None,
        least_layers: int = 1,
    ) -> None:
        self.model, self.anatomy, self.budget = model, model.anatomy, budget
        self.dials = dials(self.anatomy, axes)
        self.order, self.least_layers = tuple(order or ()), max(1, least_layers)
        n = self.anatomy.n_layers
        if len(set(self.order)) != len(self.order) or any(not 0 <= i < n for i in self.order):
            raise UsageError(f"order of layers {list(self.order)}: expected distinct indices from 0 to {n - 1}")
        self._sayable_sizes: dict[tuple[tuple[str, int], ...], bool] = {}
        self._sayable_layers: dict[tuple[tuple[tuple[str, ...], int | None], ...], bool] = {}

    # ---- single candidates ------------------------------------------------------------------------------------

    def whole(self) -> Candidate:
        """The model as it is (each dial at its largest size): usually over the budget."""
        return self.from_symbols([int(d.values[-1]) for d in self.dials], tuple(range(self.anatomy.n_layers)))

    def at(self, keep: Mapping[str, int], layers: Sequence[int] | None = None) -> Candidate:
        """The candidate with these public sizes, others as they are. Raises UsageError for a name without a dial."""
        unknown = set(keep) - {d.axis.name for d in self.dials}
        if unknown:
            raise UsageError(f"the search does not turn {', '.join(sorted(unknown))}")
        sizes = {**dict(self.whole().sizes), **keep}
        kept = range(self.anatomy.n_layers) if layers is None else sorted(layers)
        return Candidate(tuple((d.axis.name, sizes[d.axis.name]) for d in self.dials), tuple(kept))

    def sizes(self, candidate: Candidate) -> dict[str, int]:
        """Axis sizes of a candidate."""
        out, keep = dict(self.anatomy.sizes), candidate.keep
        for dial in self.dials:
            outer = math.prod(out[s] for s in dial.axis.symbols[:-1])
            out |= dict.fromkeys(dial.symbols, keep[dial.axis.name] // outer)
        return out

    def costs(self, candidate: Candidate) -> dict[str, Any]:
        """Resource -> what the candidate takes, for every limit of the budget."""
        return self.budget.costs(self.sizes(candidate), frozenset(candidate.layers))

    def fits(self, candidate: Candidate) -> bool:
        """Whether it keeps every limit."""
        return bool(self.budget.fits(self.sizes(candidate), frozenset(candidate.layers)))

    def can_be_said(self, candidate: Candidate) -> bool:
        """Whether transformers reads the candidate's sizes and layers back from the config they make (remembered)."""
        sizes = self.sizes(candidate)
        if self.from_symbols([sizes[d.axis.symbol] for d in self.dials], candidate.layers) != candidate:
            return False  # a size that is no multiple of its groups
        if candidate.sizes not in self._sayable_sizes:
            self._sayable_sizes[candidate.sizes] = _can_say(self.anatomy, sizes)
        return self._sayable_sizes[candidate.sizes] and self.can_keep(candidate.layers)

    def can_keep(self, layers: tuple[int, ...]) -> bool:
        """Whether the config can say the model with only these layers.

        Remembered by what a config lists of them: the kind of each, and the shared block it uses.
        """
        users = self.anatomy.shared_users
        said = tuple((self.anatomy.kinds[i], self.anatomy.block_of(i) if i in users else None) for i in layers)
        if said not in self._sayable_layers:
            self._sayable_layers[said] = bool(layers) and can_keep(self.model, layers)
        return self._sayable_layers[said]

    def from_symbols(self, values: Sequence[int], layers: tuple[int, ...]) -> Candidate:
        """From sizes of the dials' own symbols."""
        sizes = dict(self.anatomy.sizes)
        for dial, value in zip(self.dials, values, strict=True):
            sizes |= dict.fromkeys(dial.symbols, value)
        public = [math.prod(sizes[s] for s in d.axis.symbols) for d in self.dials]
        return Candidate(tuple((d.axis.name, p) for d, p in zip(self.dials, public, strict=True)), layers)

    # ---- steps ------------------------------------------------------------------------------------------------

    def steps(self, candidate: Candidate, *, down: bool, rng: Generator | None = None) -> Iterator[Candidate]:
        """Candidates one step smaller or larger, within the config but not necessarily within the budget.

        In the order of the dials, then of the layers; with ``rng`` in random order, all layers together as likely to
        come first as one dial.
        """
        return (c for c in self._steps(candidate, down, rng) if self.can_keep(c.layers))

    def _steps(self, candidate: Candidate, down: bool, rng: Generator | None = None) -> Iterator[Candidate]:
        """:meth:`steps` before the config is asked about the layers."""
        places = np.arange(len(self.dials) + 1) if rng is None else rng.permutation(len(self.dials) + 1)
        for place in places:
            if place < len(self.dials):
                turned = self._dial_step(candidate, int(place), down)
                if turned is not None:
                    yield turned
                continue
            layers = [i for i in self.order if (i in candidate.layers) == down]
            for i in layers if rng is None else rng.permutation(layers):
                kept = tuple(sorted({*candidate.layers} ^ {int(i)}))
                if len(kept) >= self.least_layers:
                    yield Candidate(candidate.sizes, kept)

    def _dial_step(self, candidate: Candidate, i: int, down: bool) -> Candidate | None:
        """The next size of dial ``i``; with a second dial where no size of the first alone can be said."""
        sizes = self.sizes(candidate)
        first = self._beyond(sizes, i, down)
        if not len(first):
            return None
        alone = self._sayable(sizes, [i], [first])
        if alone.any():
            return self._turned(candidate, sizes, {i: int(first[alone.argmax()])})
        best: tuple[int, dict[int, int]] | None = None
        for k in range(len(self.dials)):
            second = self._beyond(sizes, k, down)
            if k == i or not len(second):
                continue
            ok = self._sayable(sizes, [i, k], [first, second])
            if ok.any():
                # the pair nearest by: few steps on both dials
                far = np.add.outer(np.arange(len(first)), np.arange(len(second)))
                a, b = np.unravel_index(int(np.where(ok, far, far.max() + 1).argmin()), far.shape)
                if best is None or far[a, b] < best[0]:
                    best = int(far[a, b]), {i: int(first[a]), k: int(second[b])}
        return None if best is None else self._turned(candidate, sizes, best[1])

    def _turned(self, candidate: Candidate, sizes: Mapping[str, int], values: Mapping[int, int]) -> Candidate:
        now = [values.get(i, sizes[d.axis.symbol]) for i, d in enumerate(self.dials)]
        return self.from_symbols(now, candidate.layers)

    def _beyond(self, sizes: Mapping[str, int], i: int, down: bool) -> NDArray[np.int64]:
        """Sizes of a dial in the direction of the step, nearest first."""
        values, now = self.dials[i].values, sizes[self.dials[i].axis.symbol]
        return values[values < now][::-1] if down else values[values > now]

    def _sayable(
        self, sizes: Mapping[str, int], turned: list[int], values: list[NDArray[np.int64]]
    ) -> NDArray[np.bool_]:
        """Which combinations of values the config can express; shape (values of each dial ...)."""
        trial, grids = dict[str, Any](sizes), np.meshgrid(*values, indexing="ij")
        for i, grid in zip(turned, grids, strict=True):
            trial |= dict.fromkeys(self.dials[i].symbols, grid)
        anatomy = self.anatomy
        ok = expressible(anatomy.family, trial, anatomy.config, anatomy.live)
        return np.asarray(np.broadcast_to(ok, grids[0].shape).astype(bool))

    # ---- what searches ask for --------------------------------------------------------------------------------

    def neighbours(self, candidate: Candidate) -> list[Candidate]:
        """All candidates within the budget that are one step, or one step up and one down, away; sorted."""
        up = list(self._steps(candidate, down=False))
        exchanged = (c for larger in up for c in self._steps(larger, down=True))
        near = {*self._steps(candidate, down=True), *up, *exchanged} - {candidate}
        return sorted(c for c in near if self.fits(c) and self.can_be_said(c))

    def random(self, rng: Generator, count: int) -> list[Candidate]:
        """Different candidates that use their budget up: no single step up fits. Fewer, when there are fewer to find.

        Each starts from the whole model, gives up random steps (each dial and layer as likely as any other) until it
        fits, a few more, and takes back what fits. Raises BudgetError when nothing fits.
        """
        found: dict[Candidate, None] = {}
        whole = self.whole()
        if not self.can_be_said(whole):
            raise UsageError(
                f"the config cannot say the largest sizes together: {whole}", hint="add the present size of every axis"
            )
        for _ in range(_PATIENCE * count):
            if len(found) == count:
                break
            smaller = self.shrunk(whole, rng)
            for _ in range(int(rng.integers(0, _MOST_SWITCHES + 1))):
                smaller = next(self.steps(smaller, down=True, rng=rng), smaller)
            grown = self.grown(smaller, rng)
            if self.can_be_said(grown):
                found[grown] = None
        return list(found)

    def shrunk(self, candidate: Candidate, rng: Generator | None = None) -> Candidate:
        """``candidate`` after random steps down until it fits. Raises BudgetError when it never does."""
        while not self.fits(candidate):
            smaller = next(self.steps(candidate, down=True, rng=rng), None)
            if smaller is None:
                raise self.budget.missed(self.costs(candidate), str(candidate))
            candidate = smaller
        return candidate

    def grown(self, candidate: Candidate, rng: Generator | None = None) -> Candidate:
        """``candidate`` after random steps up, as long as one fits."""
        while True:
            larger = next((c for c in self.steps(candidate, down=False, rng=rng) if self.fits(c)), None)
            if larger is None:
                return candidate
            candidate = larger

    def mutate(self, candidate: Candidate, rng: Generator) -> Candidate:
        """A candidate near ``candidate``, which must fit: k switches as in :mod:`secateur.allocation.mutation`.

        A switch takes one step up, then steps down elsewhere until the budget is kept again, then what fits on top.
        """
        mutant = candidate
        for _ in range(int(rng.integers(1, _MOST_SWITCHES + 1, size=2).min())):
            mutant = self._switch(mutant, rng)
        return mutant

    def _switch(self, candidate: Candidate, rng: Generator) -> Candidate:
        for larger in self.steps(candidate, down=False, rng=rng):
            taken = larger
            while not self.fits(taken):
                # not the way back: what has just grown stays grown
                down = (c for c in self.steps(taken, down=True, rng=rng) if not _undoes(candidate, larger, c))
                smaller = next(down, None)
                if smaller is None:
                    break
                taken = smaller
            if taken != candidate and self.fits(taken) and self.can_be_said(taken):
                return taken
        # nothing can grow: a step down makes room for other growth later
        fewer = self.steps(candidate, down=True, rng=rng)
        return next((c for c in fewer if self.fits(c) and self.can_be_said(c)), candidate)


def _can_say(anatomy: Anatomy, sizes: Mapping[str, int]) -> bool:
    try:
        child_config(anatomy, sizes, range(anatomy.n_layers))
    except (InexpressibleError, ConfigError):  # the family's rules do not know all that config classes refuse
        return False
    return True


def _undoes(before: Candidate, larger: Candidate, after: Candidate) -> bool:
    """Whether ``after`` gives back some of what ``larger`` had gained over ``before``."""
    grown = [n for n, s in larger.sizes if s > before.keep[n]]
    back = set(larger.layers) - set(before.layers)
    return any(after.keep[n] < larger.keep[n] for n in grown) or not back <= set(after.layers)
