"""Routed experts: router-weighted output norms, and inside an expert the activations its second matrix reads.

Papers: Minitron (arXiv 2407.14679) for the aggregation over samples and tokens; scoring an expert by what it adds to
the stream, as NVIDIA's Model-Optimizer does, here weighted by the router. Statistics:
:mod:`secateur.calibration.experts`, whose glossary applies.

    experts      s_e      = norm[e] / tokens of the text
    expert_ffn   s_(e,j)  = sqrt( l2mean[e, j] )

An expert with few tokens scores low for lack of evidence, so :func:`starved` says which these are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secateur.anatomy.anatomy import Anatomy, Scope
from secateur.calibration.stats import Stats
from secateur.errors import UsageError
from secateur.importance.base import Slots

AXES = ("E", "fe")
#: An expert is starved below this share of the tokens an even router would send it.
STARVED = 0.05


def score(anatomy: Anatomy, stats: Stats, axis: str) -> dict[tuple[str, Scope], NDArray[np.float64]]:
    """Scores of axis ``E`` (shape (E,)) or ``fe`` (shape (E, fe)). Raises UsageError without expert statistics."""
    slots = Slots.of(anatomy, axis)
    out = {}
    for scope in slots.scopes:
        side, what = ("out", "norm") if axis == "E" else ("in", "l2mean")
        found = stats.get(int(scope), "experts", side, what)
        if found is None:
            raise UsageError(
                f"the statistics say nothing about the experts of layer {scope}",
                hint="calibrate again, or score experts with --score magnitude",
            )
        out[axis, scope] = found / stats.tokens if axis == "E" else np.sqrt(found).reshape(slots.shape)
    return out


def starved(stats: Stats) -> dict[int, list[int]]:
    """Layer -> experts that got less than ``STARVED`` of an even share of the tokens."""
    out: dict[int, list[int]] = {}
    for key, tokens in stats.tensors.items():
        layer, _, what = key.partition("/")
        if what == "experts/out/tokens":
            few = tokens < STARVED * tokens.mean()
            if few.any():
                out[int(layer)] = few.nonzero().flatten().tolist()
    return out
