"""Activation magnitude, nested and group-aware inside the SSM.

Papers: Minitron (arXiv 2407.14679) for aggregation and hidden / ffn / head scores; Minitron-SSM (arXiv 2504.11409,
section 3) for SSM heads and head channels. Experts: :mod:`secateur.importance.experts`; state entries:
:mod:`secateur.importance.state`.

Glossary: ``agg`` = L2 over samples of the mean |a| over tokens (statistic ``l2mean`` is its square);
``x`` = the x part of in_proj's output, before the convolution, as an array over (g, h, p).

    channels   s_p      = || agg(x)[:, :, p] ||_2                 one ranking for all heads of a layer
    heads      f_(g,h)  = || agg(x)[g, h, kept p] ||_2            only channels that stay: "nested"
    others     s_u      = || agg(input of the reading linear)[entries of u] ||_2
    hidden     s_d      = sqrt( sum over all residual norms of agg(norm output)[d]^2 )

Shapes: scores (old sizes of the axis' parents ..., old size). Differs from NVIDIA's code in that values are returned,
not an order, and in that heads are ranked in every family whose layouts have groups, not in one mixer class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from secateur.anatomy.anatomy import Anatomy, Scope
from secateur.anatomy.grids import reduce_to
from secateur.calibration.stats import Stats
from secateur.errors import UsageError
from secateur.importance import experts, state
from secateur.importance.base import Reader, Scores, Slots
from secateur.importance.places import Place, Vector, norms, sources, statistic

_Found = dict[tuple[str, Scope], Vector]
#: How SSM state entries are scored.
_Entries = Callable[[Anatomy, Stats], _Found]


def score(anatomy: Anatomy, stats: Stats, axes: Iterable[str], sizes: Mapping[str, int], read: Reader) -> Scores:
    """Scores of ``axes`` for a cut to ``sizes``. Raises UsageError for an axis no observed module shows."""
    return _score(anatomy, stats, list(axes), sizes, state.output_energy)


def balanced(anatomy: Anatomy, stats: Stats, axes: Iterable[str], sizes: Mapping[str, int], read: Reader) -> Scores:
    """The same, with SSM state entries by controllability times observability."""
    return _score(anatomy, stats, list(axes), sizes, state.balanced)


def _score(anatomy: Anatomy, stats: Stats, wanted: list[str], sizes: Mapping[str, int], entries: _Entries) -> Scores:
    out: _Found = {}
    for axis in wanted:
        out |= entries(anatomy, stats) if axis == "n" else _one(anatomy, stats, axis)
    if "p" in wanted:
        for key in [k for k in out if k[0] == "p"]:
            shared = np.sqrt((out[key] ** 2).sum(axis=tuple(range(out[key].ndim - 1))))
            out[key] = np.broadcast_to(shared, out[key].shape).copy()
    if "h" in wanted and "p" in wanted:
        out |= _nested_heads(anatomy, stats, out, sizes["p"])
    return out


def _one(anatomy: Anatomy, stats: Stats, axis: str) -> _Found:
    if axis == "d":
        return _hidden(anatomy, stats)
    if axis in experts.AXES:
        return experts.score(anatomy, stats, axis)
    return _channels(anatomy, stats, axis)


def _channels(anatomy: Anatomy, stats: Stats, axis: str) -> _Found:
    """Per scope, the sum over the places of the best kind that show the axis there."""
    slots = Slots.of(anatomy, axis)
    found: _Found = {}
    for places in sources(anatomy, stats, axis):
        here: _Found = {}
        for place in places:
            for part in _parts(anatomy, stats, place, axis):
                key = (axis, anatomy.scope(axis, place.layer))
                here[key] = here.get(key, np.zeros(slots.shape)) + part
        found = here | found
    blind = [s for s in slots.scopes if (axis, s) not in found]
    if blind:
        raise UsageError(
            f"activation scores say nothing about axis {axis!r} (scope {blind[0]!r}): no observed linear shows it",
            hint="keep this axis as it is, or score it with --score magnitude",
        )
    return {key: np.sqrt(e) for key, e in found.items()}


def _parts(anatomy: Anatomy, stats: Stats, place: Place, axis: str) -> list[Vector]:
    vector = statistic(stats, place, "l2mean")
    if vector is None:
        return []
    return [
        part
        for array, names in place.grids(vector, anatomy)
        for part in reduce_to(array, names, axis, anatomy.parents[axis])
    ]


def _nested_heads(anatomy: Anatomy, stats: Stats, scored: Scores, keep_p: int) -> _Found:
    """Heads by the channels that survive."""
    out: _Found = {}
    for place in sources(anatomy, stats, "h")[0]:
        vector = statistic(stats, place, "l2mean")
        if vector is None:
            continue
        scope = anatomy.scope("h", place.layer)
        best = np.argsort(-scored["p", scope][0, 0], kind="stable")[:keep_p]
        for array, names in place.grids(vector, anatomy):
            if names == ["g", "h", "p"]:
                out["h", scope] = np.sqrt(array[..., best].sum(-1))
    return out


def _hidden(anatomy: Anatomy, stats: Stats) -> _Found:
    energy = np.zeros(anatomy.sizes["d"])
    for place in norms(anatomy):
        for part in _parts(anatomy, stats, place, "d"):
            energy += part
    if not energy.any():
        raise UsageError("no norm of the residual stream was observed, so hidden has no activation scores")
    return {("d", ""): np.sqrt(energy)}
