"""Which small models to time so that every kind of layer is seen at every point of its grid.

A kind's time depends only on the axes that run through its tensors, so one model shows a point of each kind at once:
the number of models is about that of the largest grid of a kind, not of all axes crossed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.anatomy.anatomy import Anatomy
from secateur.anatomy.sizes import expressible
from secateur.model import Model
from secateur.pruning.choose import can_keep
from secateur.search.dials import Dial

#: Sizes of the axes of a kind.
Point = tuple[int, ...]
LEAST_POINTS = 27
"""Of a kind whose grid the config cannot say as a whole: as many as three sizes of three axes."""
#: Combinations of free sizes tried to make one wanted point sayable.
_MAX_TRIALS = 200_000


def kinds_of(anatomy: Anatomy, dials: Sequence[Dial]) -> dict[str, tuple[str, ...]]:
    """Kind of layer ('' for what lies outside the layers) -> symbols of the dials that run through it."""
    live: dict[str, set[str]] = {}
    for group in anatomy.groups:
        names = [""] if group.layers is None else {"+".join(anatomy.kinds[i]) for i in group.layers}
        for name in names:
            live.setdefault(name, set()).update(group.layout.axes, group.factors)
    return {n: tuple(d.axis.symbol for d in dials if live[n] & set(d.symbols)) for n in sorted(live)}


def representative(model: Model) -> tuple[int, ...]:
    """Few layers that the config can say together and that show every kind."""
    kinds = ["+".join(k) for k in model.anatomy.kinds]
    first = tuple(sorted({k: i for i, k in reversed(list(enumerate(kinds)))}.values()))
    if can_keep(model, first):
        return first
    kept = tuple(range(len(kinds)))
    for layer in reversed(kept):
        rest = tuple(i for i in kept if i != layer)
        if kinds[layer] in [kinds[i] for i in rest] and can_keep(model, rest):
            kept = rest
    return kept


def schedule(anatomy: Anatomy, dials: Sequence[Dial], full: Sequence[Dial] | None = None) -> list[dict[str, int]]:
    """Sizes (symbol of each dial -> size) of the models to time: together they show all sayable points of all kinds.

    ``full``: the same dials with every size they may take; where the config ties sizes to each other, points of these
    stand in for those of the grid that it cannot say.
    """
    full = dials if full is None else full
    kinds = kinds_of(anatomy, dials)
    open_points = _points(anatomy, dials, full, kinds)
    models = []
    while any(open_points.values()):
        largest = max(kinds, key=lambda n: len(open_points[n]))
        fixed = dict(zip(kinds[largest], open_points[largest].pop(0), strict=True))
        if _completed(anatomy, full, fixed) is None:
            continue  # no shape of this family has such a block
        for name, axes in kinds.items():
            fixed = _joined(anatomy, full, fixed, axes, open_points[name])
        found = _completed(anatomy, full, fixed)
        assert found is not None
        models.append(found)
        for name, axes in kinds.items():
            seen = tuple(found[a] for a in axes)
            open_points[name] = [p for p in open_points[name] if p != seen]
    return models


def _points(
    anatomy: Anatomy, dials: Sequence[Dial], full: Sequence[Dial], kinds: Mapping[str, tuple[str, ...]]
) -> dict[str, list[Point]]:
    """Points of every kind's grid, the largest first; see :func:`spread_points` where not all can be said."""
    values = {d.axis.symbol: [int(v) for v in d.values] for d in dials}
    out = {n: list(itertools.product(*(values[a] for a in axes)))[::-1] for n, axes in kinds.items()}
    lattice, sayable = _lattice(anatomy, dials, full)
    if sayable.all():
        return out
    for name, axes in kinds.items():
        at = [i for i, d in enumerate(full) if d.axis.symbol in axes]
        some = sayable.any(tuple(i for i in range(len(full)) if i not in at))
        found = {tuple(int(lattice[i][k]) for i, k in zip(at, where, strict=True)) for where in np.argwhere(some)}
        grid = [p for p in out[name] if p in found]
        if len(grid) < len(out[name]):
            out[name] = spread_points(grid, found, max(len(grid), LEAST_POINTS))
    return out


def _lattice(
    anatomy: Anatomy, dials: Sequence[Dial], full: Sequence[Dial]
) -> tuple[list[NDArray[np.int64]], NDArray[np.bool_]]:
    """(sizes of each dial, whether the config can say their combinations); of many sizes every other one, and so on."""
    values = [d.values for d in full]
    while math.prod(map(len, values)) > _MAX_TRIALS and max(map(len, values)) > 3:
        most = max(range(len(values)), key=lambda i: len(values[i]))
        values[most] = np.unique(np.r_[values[most][::2], values[most][-1], dials[most].values])
    return values, _sayable(anatomy, anatomy.sizes, full, values)


def _sayable(
    anatomy: Anatomy, plain: Mapping[str, int], free: Sequence[Dial], values: Sequence[NDArray[np.int64]]
) -> NDArray[np.bool_]:
    """Whether the config can say the sizes ``plain`` with each combination of ``values`` of the free dials."""
    sizes: dict[str, Any] = dict(plain)
    for dial, grid in zip(free, np.meshgrid(*values, indexing="ij"), strict=True):
        sizes |= dict.fromkeys(dial.symbols, grid)
    ok = expressible(anatomy.family, sizes, anatomy.config, anatomy.live)
    return np.broadcast_to(ok, [len(v) for v in values])


def spread_points(grid: Sequence[Point], sayable: set[Point], count: int) -> list[Point]:
    """``grid`` and more of ``sayable`` (at least the smallest and the largest size of every axis), each the farthest
    from all before it in sizes relative to the largest, until there are ``count``; the largest first."""
    pool = sorted(sayable, reverse=True)
    if not pool or not pool[0]:
        return pool
    where = np.array(pool, dtype=np.float64) / np.array(pool).max(0)
    ends = [int(f(where[:, axis])) for axis in range(where.shape[1]) for f in (np.argmin, np.argmax)]
    chosen = list(dict.fromkeys([*(pool.index(p) for p in grid), 0, *ends]))
    far = np.min([np.abs(where - where[i]).max(1) for i in chosen], 0)
    while len(chosen) < min(count, len(pool)):
        chosen.append(int(far.argmax()))
        far = np.minimum(far, np.abs(where - where[chosen[-1]]).max(1))
    return sorted((pool[i] for i in chosen), reverse=True)


def _joined(
    anatomy: Anatomy, dials: Sequence[Dial], fixed: dict[str, int], axes: Sequence[str], points: list[Point]
) -> dict[str, int]:
    """``fixed`` with the first open point of another kind that agrees with it and can be said beside it."""
    for point in points:
        wanted = dict(zip(axes, point, strict=True))
        if all(fixed.get(a, v) == v for a, v in wanted.items()):
            both = {**fixed, **wanted}
            if _completed(anatomy, dials, both) is not None:
                return both
    return fixed


def _completed(anatomy: Anatomy, dials: Sequence[Dial], fixed: Mapping[str, int]) -> dict[str, int] | None:
    """``fixed`` with the largest sizes that the config can say beside it; None if there are none."""
    plain = {d.axis.symbol: fixed.get(d.axis.symbol, int(d.values[-1])) for d in dials}
    free = [d for d in dials if d.axis.symbol not in fixed]
    while np.prod([len(d.values) for d in free], dtype=float) > _MAX_TRIALS:
        free = free[:-1]
    sizes = dict(anatomy.sizes)
    for dial in dials:
        sizes |= dict.fromkeys(dial.symbols, plain[dial.axis.symbol])
    for tried in ([], free):  # mostly the largest will do
        values = [d.values[::-1] for d in tried]
        ok = _sayable(anatomy, sizes, tried, values)
        if ok.any():
            at = np.unravel_index(int(ok.argmax()), ok.shape) if tried else ()
            return plain | {d.axis.symbol: int(v[k]) for d, v, k in zip(tried, values, at, strict=True)}
    return None
