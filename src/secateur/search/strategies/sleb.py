"""SLEB (arXiv 2402.09025): greedy removal of whole layers by loss, the first and the last one kept.

    R <- R + argmin over layers l, 0 < l < L - 1, of  NLL(model without R + l)

Against the published code: calibration text is the caller's (there 128 samples of WikiText-2), and layers whose absence
the config cannot say stay.
"""

from __future__ import annotations

from secateur.search.arena import Arena
from secateur.search.outcome import Outcome
from secateur.search.removal.arena import Budgeted, Measured, outcome
from secateur.search.removal.found import Found, Watch, Work, greedy, silent
from secateur.search.removal.places import Ground, Place


def inner(where: tuple[Place, ...], layers: int) -> tuple[Place, ...]:
    """Places outside of the first and the last layer."""
    return tuple(p for p in where if all(0 < u.layer < layers - 1 for u in p.levels))


def find(work: Work, ground: Ground, *, watch: Watch = silent) -> Found:
    """Greedy by loss; the ground's places should be :func:`inner` ones."""
    return greedy(work, ground, "nll", watch=watch)


def search(arena: Arena) -> Outcome:
    """Until the budget of a search is kept."""
    inside = inner(Budgeted(arena).places, arena.model.anatomy.n_layers)
    order = [u.layer for p in inside for u in p.levels]
    return outcome(arena, find(Measured(arena), Budgeted(arena, only=order)))
