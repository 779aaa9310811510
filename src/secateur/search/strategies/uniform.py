"""Uniform scaling, the baseline: all widths shrink by the same share as far as the config and kernels allow.

    while over the budget:  the axis that keeps the largest share of its size takes a step down
    while something fits:   the axis that keeps the smallest share takes a step up

No score is used. Layers all stay.
"""

from __future__ import annotations

from secateur.search.arena import Arena
from secateur.search.candidates import Candidate, Space
from secateur.search.strategies.base import Outcome


def search(arena: Arena) -> Outcome:
    stage = arena.stage("zero-shot", max(arena.effort.tokens))
    found = scaled(arena.space)
    arena.score([found], stage)
    return Outcome(found, stage)


def scaled(space: Space) -> Candidate:
    """The most even shape within the budget. Raises BudgetError when none is."""
    now = space.whole()
    while not space.fits(now):
        smaller = _even(space, now, down=True)
        if smaller is None:
            raise space.budget.missed(space.costs(now), str(now))
        now = smaller
    while (larger := _even(space, now, down=False)) is not None:
        now = larger
    return now


def _even(space: Space, candidate: Candidate, *, down: bool) -> Candidate | None:
    """The step that evens most out; up only where it fits the budget."""
    whole = space.whole().keep

    def share(after: Candidate) -> float:
        turned = [candidate.keep[n] / whole[n] for n, s in after.sizes if s != candidate.keep[n]]
        return -max(turned) if down else min(turned)

    steps = [c for c in space.steps(candidate, down=down) if c.layers == candidate.layers]
    allowed = [c for c in steps if space.can_be_said(c) and (down or space.fits(c))]
    return min(allowed, key=share, default=None)
