"""ShortGPT (arXiv 2403.03853): the units that turn the residual stream least go, all at once.

    BI(u) = 1 - mean over tokens of cos(layer's output without u, layer's output)

For a whole layer that is block influence, since a layer that is gone hands its input on. For a part of a layer it is
our reading: the paper knows whole layers only.
"""

from __future__ import annotations

from secateur.search.removal.arena import strategy
from secateur.search.removal.found import Found, Watch, Work, found, one_shot, silent
from secateur.search.removal.masked import Measure
from secateur.search.removal.places import Ground


def scores(work: Work, ground: Ground) -> list[list[float]]:
    """Influence per place and level."""
    units = [u for p in ground.places for u in p.levels]
    values = iter(work.influence(units).tolist())
    return [[next(values) for _ in p.levels] for p in ground.places]


def find(work: Work, ground: Ground, *, measure: Measure = "kl", watch: Watch = silent) -> Found:
    """One look at every unit; ``measure`` only says what the result is reported in."""
    ranked = scores(work, ground)
    choice = one_shot(ground, ranked)
    told = {p.name: s for p, s in zip(ground.places, ranked, strict=True)}
    return found(work, ground.removal(choice), measure, len(told), details={"influence": told})


search = strategy(lambda work, ground, arena: find(work, ground))
"""Whole layers, until the budget of a search is kept; the influence is that of its statistics."""
