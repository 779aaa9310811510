"""Activation magnitude, nested and group-aware inside the SSM.

Papers: Minitron (arXiv 2407.14679) for aggregation and hidden / ffn / head scores; Minitron-SSM (arXiv 2504.11409,
section 3) for SSM heads and head channels.

Glossary: ``agg`` = L2 over samples of the mean |a| over tokens (statistic ``l2mean`` is its square);
``x`` = the x part of in_proj's output, before the convolution, as an array over (g, h, p).

    channels   s_p      = || agg(x)[:, :, p] ||_2                 one ranking for all heads of a layer
    heads      f_(g,h)  = || agg(x)[g, h, kept p] ||_2            only channels that stay: "nested"
    others     s_u      = || agg(input of the reading linear)[entries of u] ||_2
    hidden     s_d      = sqrt( sum over all residual norms of agg(norm output)[d]^2 )

Shapes: scores (old sizes of the axis' parents ..., old size). Differs from NVIDIA's code in that values are returned, not an
order, and in that heads are ranked in every family whose layouts have groups, not in one mixer class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from secateur.anatomy.anatomy import Anatomy
from secateur.anatomy.grids import reduce_to
from secateur.calibrate.stats import Stats
from secateur.errors import UsageError
from secateur.importance.base import Reader, Scores, Slots
from secateur.importance.places import Place, Vector, norms, projections, readers, statistic


def score(anatomy: Anatomy, stats: Stats, axes: Iterable[str], sizes: Mapping[str, int], read: Reader) -> Scores:
    """Scores of ``axes`` for a cut to ``sizes``. Raises UsageError for an axis no observed linear shows."""
    wanted, out = list(axes), {}
    for axis in wanted:
        out |= _hidden(anatomy, stats) if axis == "d" else _axis(anatomy, stats, axis)
    if "p" in wanted:
        for key in [k for k in out if k[0] == "p"]:
            shared = np.sqrt((out[key] ** 2).sum(axis=(0, 1)))
            out[key] = np.broadcast_to(shared, out[key].shape).copy()
    if "h" in wanted and "p" in wanted:
        out |= _nested_heads(anatomy, stats, out, sizes["p"])
    return out


def _places(anatomy: Anatomy, axis: str) -> Iterator[Place]:
    found = list(projections(anatomy, axis))
    yield from found if found and axis in ("g", "h", "p", "c1") else readers(anatomy, axis)


def _axis(anatomy: Anatomy, stats: Stats, axis: str) -> dict[tuple[str, str], Vector]:
    slots = Slots.of(anatomy, axis)
    energy = {(axis, scope): np.zeros(slots.shape) for scope in slots.scopes}
    seen: set[tuple[str, str]] = set()
    for place in _places(anatomy, axis):
        vector = statistic(stats, place, "l2mean")
        if vector is None:
            continue
        key = (axis, anatomy.scope(axis, place.layer))
        for array, names in place.grids(vector, anatomy):
            for part in reduce_to(array, names, axis, anatomy.parents[axis]):
                energy[key] += part
                seen.add(key)
    blind = sorted(set(energy) - seen)
    if blind:
        raise UsageError(
            f"activation scores say nothing about axis {axis!r} (scope {blind[0][1]!r}): no observed linear shows it",
            hint="keep this axis as it is, or score it with --score magnitude",
        )
    return {key: np.sqrt(e) for key, e in energy.items()}


def _nested_heads(anatomy: Anatomy, stats: Stats, scored: Scores, keep_p: int) -> dict[tuple[str, str], Vector]:
    """Heads by the channels that survive."""
    out: dict[tuple[str, str], Vector] = {}
    for place in _places(anatomy, "h"):
        vector = statistic(stats, place, "l2mean")
        if vector is None:
            continue
        scope = anatomy.scope("h", place.layer)
        best = np.argsort(-scored["p", scope][0, 0], kind="stable")[:keep_p]
        for array, names in place.grids(vector, anatomy):
            if names == ["g", "h", "p"]:
                out["h", scope] = np.sqrt(array[..., best].sum(-1))
    return out


def _hidden(anatomy: Anatomy, stats: Stats) -> dict[tuple[str, str], Vector]:
    found = [statistic(stats, place, "l2mean") for place in norms(anatomy)]
    energy = np.sum([v for v in found if v is not None], axis=0)
    if np.ndim(energy) == 0:
        raise UsageError("no norm of the residual stream was observed, so hidden has no activation scores")
    return {("d", ""): np.sqrt(energy)}
