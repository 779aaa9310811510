"""The grid of a space, counted in closed form all at once: Minitron's candidates (arXiv 2407.14679, 2504.11409).

Sizes of all dials are crossed with a nested chain of layer sets; the largest shapes within the budget are the ones that
NVIDIA's search scores.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.anatomy.sizes import expressible
from secateur.search.candidates import Candidate, Space

MAX_SHAPES = 500_000
#: How many more candidates than wanted are looked at first, as config classes refuse some.
_MARGIN = 4


@dataclass(frozen=True, slots=True)
class Grid:
    """``candidates``: largest first. ``fitting``: how many shapes of the grid fit the budget, out of ``seen``.

    ``note``: which dials were thinned, where the grid would have been too large.
    """

    candidates: tuple[Candidate, ...]
    fitting: int
    seen: int
    note: str = ""


def grid(space: Space, count: int, *, most: int = MAX_SHAPES) -> Grid:
    """The ``count`` candidates with most parameters within the budget, the smaller sizes first among equals.

    Raises BudgetError, naming the smallest reachable costs, when nothing fits.
    """
    chain = layer_chain(space)
    values, note = _thinned(space, max(1, most // len(chain)))
    wanted = _MARGIN * count
    while True:
        found = _largest(space, values, chain, wanted)
        candidates = list(itertools.islice((c for c in found.candidates if space.can_be_said(c)), count))
        if len(candidates) == count or wanted >= found.fitting:
            break
        wanted *= _MARGIN
    if not candidates:
        raise space.budget.missed(space.costs(found.smallest), str(found.smallest))
    return Grid(tuple(candidates), found.fitting, found.seen, note)


@dataclass(frozen=True, slots=True)
class _Found:
    candidates: list[Candidate]
    smallest: Candidate
    fitting: int
    seen: int


def _largest(space: Space, values: list[NDArray[np.int64]], chain: list[tuple[int, ...]], count: int) -> _Found:
    """The ``count`` largest points that fit by the family's rules, and the one that takes the least share."""
    best: list[tuple[int, Candidate]] = []
    fitting = seen = 0
    least: tuple[float, Candidate] = (math.inf, space.whole())
    for layers in chain:
        parameters, used, ok = _slab(space, values, layers)
        fits, seen = ok & (used <= 1), seen + int(ok.sum())
        fitting += int(fits.sum())
        at = int(np.where(ok, used, np.inf).argmin())
        if ok[at] and used[at] < least[0]:
            least = float(used[at]), _pick(space, values, at, layers)
        order = np.argsort(np.where(fits, -parameters, np.inf), kind="stable")[:count]
        best += [(int(parameters[i]), _pick(space, values, int(i), layers)) for i in order[fits[order]]]
        best = sorted(best, key=lambda b: (-b[0], b[1]))[:count]
    return _Found([c for _, c in best], least[1], fitting, seen)


def layer_chain(space: Space) -> list[tuple[int, ...]]:
    """Nested sets of layers: all, then without the least important that may go, and so on."""
    kept = tuple(range(space.anatomy.n_layers))
    chain = [kept]
    for layer in space.order:
        rest = tuple(i for i in kept if i != layer)
        if len(rest) >= space.least_layers and space.can_keep(rest):
            kept = rest
            chain.append(kept)
    return chain


def _thinned(space: Space, most: int) -> tuple[list[NDArray[np.int64]], str]:
    """Sizes of every dial, every other one left out on the longest until the grid has at most ``most`` points."""
    values = [d.values for d in space.dials]
    thinned: dict[str, None] = {}
    while math.prod(len(v) for v in values) > most and max(map(len, values)) > 1:
        longest = max(range(len(values)), key=lambda i: len(values[i]))
        values[longest] = values[longest][::-1][::2][::-1]
        thinned[space.dials[longest].axis.name] = None
    return values, f"sizes were thinned on {', '.join(thinned)}" if thinned else ""


def _slab(
    space: Space, values: list[NDArray[np.int64]], layers: tuple[int, ...]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """(parameters, share of the budget, whether the config can say it) at every point of the grid, flat."""
    anatomy, kept = space.anatomy, frozenset(layers)
    shape = tuple(len(v) for v in values) or (1,)
    trial: dict[str, Any] = dict(anatomy.sizes)
    for i, (dial, v) in enumerate(zip(space.dials, values, strict=True)):
        trial |= dict.fromkeys(dial.symbols, v.reshape([-1 if j == i else 1 for j in range(len(values))]))
    ok = np.broadcast_to(expressible(anatomy.family, trial, anatomy.config, anatomy.live), shape)
    count = np.broadcast_to(np.asarray(anatomy.count(trial, kept)), shape)
    used = np.broadcast_to(np.asarray(space.budget.used(trial, kept), dtype=np.float64), shape)
    return count.reshape(-1), used.reshape(-1), ok.reshape(-1).astype(bool)


def _pick(space: Space, values: list[NDArray[np.int64]], flat: int, layers: tuple[int, ...]) -> Candidate:
    at = np.unravel_index(flat, tuple(len(v) for v in values) or (1,))
    sizes = {d.axis.symbol: int(v[i]) for d, v, i in zip(space.dials, values, at, strict=False)}
    return space.from_symbols([sizes[d.axis.symbol] for d in space.dials], layers)
