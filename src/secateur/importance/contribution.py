"""Contribution: the energy a unit adds to the residual stream, nested and group-aware inside the SSM.

Glossary: ``x_j`` input channel j of a linear that writes the residual stream, ``W`` its weight.

    c_j      = E[x_j^2] * || W[:, j] ||^2            energy of channel j's share of the output
    units    s_u     = sqrt( sum of c over the channels of u )
    channels s_p     = sqrt( sum over the heads of a layer of c[:, :, p] )     one ranking for all heads, as in
    heads    s_(g,h) = sqrt( sum over kept p of c[g, h, p] )                   arXiv 2504.11409: "nested"

Wanda's score of a weight (arXiv 2306.11695) summed over a unit. Against the activation criterion it sees the gate, the
scan and the norm that lie between in_proj and the stream, and how much the reading matrix makes of a channel; against
FLAP it keeps the mean, which no bias takes over in models that have none, and it ranks every axis: those that no such
linear reads (hidden, state, experts, channels of queries and keys) are scored as :mod:`activation` does. Shapes: (old
sizes of the axis' parents ..., old size).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch

from secateur.anatomy.anatomy import Anatomy, Scope
from secateur.anatomy.grids import reduce_to
from secateur.calibration.stats import Stats
from secateur.importance import activation, experts
from secateur.importance.base import Reader, Scores, Slots
from secateur.importance.places import Vector, readers, statistic, stored

_Found = dict[tuple[str, Scope], Vector]
_ELSEWHERE = {"d", "n", *experts.AXES}


def score(anatomy: Anatomy, stats: Stats, axes: Iterable[str], sizes: Mapping[str, int], read: Reader) -> Scores:
    """Scores of ``axes`` for a cut to ``sizes``. Raises UsageError for an axis no observed module shows."""
    wanted = list(axes)
    out: _Found = dict(activation.score(anatomy, stats, wanted, sizes, read))
    for axis in wanted:
        if axis not in _ELSEWHERE:
            out |= _units(anatomy, stats, axis, read)
    if "p" in wanted:
        for key in [k for k in out if k[0] == "p"]:
            shared = np.sqrt((out[key] ** 2).sum(axis=tuple(range(out[key].ndim - 1))))
            out[key] = np.broadcast_to(shared, out[key].shape).copy()
    if "h" in wanted and "p" in wanted:
        out |= _nested_heads(anatomy, stats, out, sizes["p"], read)
    return out


def _units(anatomy: Anatomy, stats: Stats, axis: str, read: Reader) -> _Found:
    energy: _Found = {}
    for scope, array, names in _energies(anatomy, stats, axis, read):
        for part in reduce_to(array, names, axis, anatomy.parents[axis]):
            key = (axis, scope)
            energy[key] = energy.get(key, np.zeros(Slots.of(anatomy, axis).shape)) + part
    return {key: np.sqrt(e) for key, e in energy.items()}


def _nested_heads(anatomy: Anatomy, stats: Stats, scored: Scores, keep_p: int, read: Reader) -> _Found:
    """Heads by the channels that survive."""
    out: _Found = {}
    for scope, array, names in _energies(anatomy, stats, "h", read):
        if names == ["g", "h", "p"]:
            best = np.argsort(-scored["p", scope][0, 0], kind="stable")[:keep_p]
            out["h", scope] = np.sqrt(array[..., best].sum(-1))
    return out


def _energies(anatomy: Anatomy, stats: Stats, axis: str, read: Reader) -> Iterator[tuple[Scope, Vector, list[str]]]:
    """(scope, energies over named axes, their names) of every linear that reads ``axis`` and writes the stream."""
    for place in readers(anatomy, stats, axis):
        squares = statistic(stats, place, "sumsq")
        if squares is None:
            continue
        weight = read(stored(anatomy, place))
        columns = weight.to(torch.float32).square().sum(1 - place.dim, dtype=torch.float64).numpy()
        for array, names in place.grids(squares / stats.tokens * columns, anatomy):
            yield anatomy.scope(axis, place.layer), array, names
