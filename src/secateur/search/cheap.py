"""The cheap score: how much importance a shape gives up, read from the statistics of one walk; no forward pass.

    lost(shape) = sum over axes of lost(axis, size) over layers that stay, as in :mod:`secateur.pruning.marginal`
                + sum over layers that go of BI(layer) / mean BI

both in units of layers: an axis that can carry nothing of a layer any more costs one, and so does a layer of average
block influence. A rough mixture, which is why the next stage's agreement with it is reported.
"""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING

import numpy as np

from secateur.errors import UsageError
from secateur.importance.depth import layer_scores
from secateur.pruning.shape import resolve
from secateur.search.candidates import Candidate
from secateur.search.stages import Shape

if TYPE_CHECKING:
    from secateur.search.bench import Bench


@singledispatch
def lost(shape: Shape, bench: Bench) -> float:
    """Importance that ``shape`` gives up; types of shapes register here. Raises UsageError without statistics."""
    raise TypeError(f"nothing scores a {type(shape).__name__} from statistics")


@lost.register(Candidate)
def _lost(candidate: Candidate, bench: Bench) -> float:
    anatomy = bench.model.anatomy
    if bench.stats is None:
        raise UsageError("the cheap score reads statistics, and there are none", hint="calibrate first, or skip it")
    gone = [i for i in range(anatomy.n_layers) if i not in candidate.layers]
    total = 0.0
    if gone:
        influence = np.array(layer_scores(anatomy, bench.stats, "block-influence"))
        total += float(influence[gone].sum() / influence.mean())
    sizes = resolve(anatomy, candidate.keep)
    for curve in bench.curves(candidate.layers):
        total += float(np.interp(sizes[curve.axis.symbol], curve.values, curve.lost))
    return total
