"""Crossover of shapes: a child within the budget that has every size from one of two parents, or nearly so."""

from __future__ import annotations

from numpy.random import Generator

from secateur.search.candidates import Candidate, Space


def crossed(space: Space, a: Candidate, b: Candidate, rng: Generator) -> Candidate:
    """Each axis, and all layers together, from ``a`` or ``b``, by halves; then steps down until it fits, and up as far
    as it goes. ``a`` where the config cannot say the mixture."""
    sizes = tuple((name, size if rng.random() < 0.5 else b.keep[name]) for name, size in a.sizes)
    mixed = Candidate(sizes, a.layers if rng.random() < 0.5 else b.layers)
    if not space.can_be_said(mixed):
        return a
    child = space.grown(space.shrunk(mixed, rng), rng)
    return child if space.can_be_said(child) else a
