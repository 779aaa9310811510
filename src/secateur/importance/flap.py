"""FLAP (arXiv 2312.11983): fluctuation of a channel times the weight that reads it.

Glossary: ``x_j`` input channel j of a linear that writes the residual stream, ``W`` its weight.

    score_j = Var(x_j) * || W[:, j] ||^2          units sum the scores of their channels

A channel that never fluctuates can be replaced by a bias, hence scores 0. Published code standardises scores per layer to
rank across layers; sizes here are equal in all layers of a kind, so only the ranking inside a layer counts and the
standardisation would change nothing. Shapes: (old sizes of the axis' parents ..., old size).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from secateur.anatomy.anatomy import Anatomy
from secateur.anatomy.grids import reduce_to
from secateur.calibrate.stats import Stats
from secateur.errors import UsageError
from secateur.importance.base import Reader, Scores, Slots
from secateur.importance.places import readers, statistic


def score(anatomy: Anatomy, stats: Stats, axes: Iterable[str], sizes: Mapping[str, int], read: Reader) -> Scores:
    """FLAP scores; ``hidden`` has none. Raises UsageError for an axis no observed linear reads."""
    out = {}
    for axis in axes:
        slots = Slots.of(anatomy, axis)
        found = {(axis, scope): np.zeros(slots.shape) for scope in slots.scopes}
        met = 0
        for place in readers(anatomy, axis):
            total, squares = statistic(stats, place, "sum"), statistic(stats, place, "sumsq")
            if total is None or squares is None:
                continue
            mean = total / stats.tokens
            variance = squares / stats.tokens - mean**2
            weight = read(anatomy.layer_prefix(place.layer) + place.tensor)
            columns = weight.to(torch.float32).square().sum(0, dtype=torch.float64).numpy()
            for array, names in place.grids(variance * columns, anatomy):
                for part in reduce_to(array, names, axis, anatomy.parents[axis]):
                    found[axis, anatomy.scope(axis, place.layer)] += part
                    met += 1
        if not met:
            raise UsageError(
                f"FLAP has no score for axis {axis!r}: no linear that writes the residual stream reads it",
                hint="use --score activation",
            )
        out |= found
    return out
