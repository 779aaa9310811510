"""FLAP (arXiv 2312.11983): fluctuation of a channel times the weight that reads it.

Glossary: ``x_j`` input channel j of a linear that writes the residual stream, ``W`` its weight.

    score_j = Var(x_j) * || W[:, j] ||^2          units sum the scores of their channels

A channel that never fluctuates can be replaced by a bias, hence scores 0. Published code standardises scores per layer
to rank across layers; sizes here are equal in all layers of a kind, so only the ranking inside a layer counts and the
standardisation would change nothing. Shapes: (old sizes of the axis' parents ..., old size).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from secateur.anatomy.anatomy import Anatomy, Scope
from secateur.anatomy.grids import reduce_to
from secateur.calibration.stats import Stats
from secateur.errors import UsageError
from secateur.importance.base import Reader, Scores, Slots
from secateur.importance.places import Place, Vector, readers, statistic, stored


def score(anatomy: Anatomy, stats: Stats, axes: Iterable[str], sizes: Mapping[str, int], read: Reader) -> Scores:
    """FLAP scores; ``hidden`` has none. Raises UsageError for an axis no observed linear reads."""
    out: dict[tuple[str, Scope], Vector] = {}
    for axis in axes:
        slots = Slots.of(anatomy, axis)
        found: dict[tuple[str, Scope], Vector] = {}
        for place in readers(anatomy, stats, axis):
            fluctuation = _fluctuation(anatomy, stats, place, read)
            if fluctuation is None:
                continue
            key = (axis, anatomy.scope(axis, place.layer))
            for array, names in place.grids(fluctuation, anatomy):
                for part in reduce_to(array, names, axis, anatomy.parents[axis]):
                    found[key] = found.get(key, np.zeros(slots.shape)) + part
        if len(found) < len(slots.scopes):
            raise UsageError(
                f"FLAP has no score for axis {axis!r}: no linear that writes the residual stream reads it",
                hint="use --score activation",
            )
        out |= found
    return out


def _fluctuation(anatomy: Anatomy, stats: Stats, place: Place, read: Reader) -> Vector | None:
    """Var(x_j) ||W[:, j]||^2 per input channel."""
    total, squares = statistic(stats, place, "sum"), statistic(stats, place, "sumsq")
    if total is None or squares is None:
        return None
    mean = total / stats.tokens
    variance = np.maximum(squares / stats.tokens - mean**2, 0.0)
    # below what float64 sums can tell apart from a constant
    variance = np.where(variance > 1e-12 * mean**2, variance, 0.0)
    weight = read(stored(anatomy, place))
    columns = weight.to(torch.float32).square().sum(1 - place.dim, dtype=torch.float64).numpy()
    fluctuation: Vector = variance * columns
    return fluctuation
