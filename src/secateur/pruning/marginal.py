"""From a budget and statistics to a shape: give up first what costs least importance per parameter.

Glossary: ``e_u`` importance of unit u, the square of its activation score; ``a`` an axis, ``s`` its size, ``l`` one of
the layers that stay.

    lost(a, s) = sum over l of  (sum of e_u over the units of a that go at size s) / (sum of e_u over all)

so an axis that cannot carry a layer's activation any more costs one per layer, whatever its unit. From the given sizes
on, the step down that loses least per parameter it frees (byte, for a budget in bytes; none counts beyond the budget)
is taken until the budget is met; then steps up that still fit are given back, most importance first. Steps are
multiples that kernels like; where the config ties two axes, they step together. Greedy, so not the optimum over all
shapes, and where ties make steps long, part of the budget stays unused.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.anatomy.anatomy import Anatomy
from secateur.anatomy.axes import PublicAxis
from secateur.anatomy.sizes import expressible, tied_axes
from secateur.calibration.stats import Stats
from secateur.errors import BudgetError, UsageError
from secateur.importance import MEASURED
from secateur.importance.base import Scores
from secateur.importance.document import document
from secateur.model import Model
from secateur.pruning.budget import group_bytes
from secateur.pruning.grid import FLOOR, kernel_step
from secateur.pruning.shape import refusal

CRITERION = "activation"
_OUTSIDE = ("vocab", "embed_dim", "layers")  # no layer shows these


@dataclass(frozen=True, slots=True)
class Curve:
    """``lost[i]``: importance gone at ``values[i]``, the sizes (of the axis' own symbol, rising) it may take.

    ``whole``: importance of all units, one per layer that has the axis.
    """

    axis: PublicAxis
    symbols: tuple[str, ...]
    values: NDArray[np.int64]
    lost: NDArray[np.float64]
    whole: float

    @property
    def kept(self) -> NDArray[np.float64]:
        """Share of the importance that each size keeps."""
        return 1 - self.lost / self.whole


@dataclass(frozen=True, slots=True)
class Reading:
    """What a plan was chosen from: scores per unit, and a curve per axis."""

    scores: Scores
    curves: tuple[Curve, ...]

    def to_json(self, anatomy: Anatomy, sizes: Mapping[str, int]) -> dict[str, Any]:
        """The importance document, with ``cumulative``: share of an axis' importance that each size keeps."""
        cumulative = []
        for c in self.curves:
            outer = math.prod(sizes[s] for s in c.axis.symbols[:-1])
            kept = [round(float(k), 6) for k in c.kept]
            at = {"axis": c.axis.name, "sizes": (c.values * outer).tolist(), "kept": kept}
            cumulative.append({**at, "chosen": int(sizes[c.axis.symbol] * outer)})
        return {**document(anatomy, CRITERION, self.scores), "cumulative": cumulative}


@dataclass(frozen=True, slots=True)
class Budget:
    """Parameters and bytes to stay within; None where there is no limit."""

    params: int | None
    nbytes: int | None

    def used(self, model: Model, sizes: Mapping[str, Any], layers: frozenset[int]) -> Any:
        """Largest share of a limit that ``sizes`` take (vectorised); above 1 is over."""
        shares = []
        if self.params is not None:
            shares.append(model.anatomy.count(sizes, layers) / self.params)
        if self.nbytes is not None:
            shares.append(group_bytes(model, sizes, layers) / self.nbytes)
        return shares[0] if len(shares) == 1 else np.maximum(*shares)


def search_marginal(
    model: Model, stats: Stats, sizes: Mapping[str, int], fixed: set[str], layers: frozenset[int], budget: Budget
) -> tuple[dict[str, int], Reading]:
    """The greedy shape under the budget, and what it was read from.

    ``fixed``: symbols whose size is given. Raises BudgetError with the smallest shape reached when nothing fits.
    """
    reading = read_curves(model, stats, sizes, fixed, layers)
    walk = _Walk(model, dict(sizes), reading.curves, layers, budget)
    while walk.used() > 1:
        if not walk.step(down=True):
            raise BudgetError(
                f"no shape fits the budget; giving up the least important units ends at {walk.used():.1%} of it: "
                + ", ".join(f"{c.axis.name}={walk.public(c)}" for c in reading.curves),
                hint="raise the budget, or drop layers too (--drop-layers)",
            )
    while walk.step(down=False):
        pass
    return walk.sizes, reading


def read_curves(
    model: Model, stats: Stats, sizes: Mapping[str, int], fixed: set[str], layers: frozenset[int]
) -> Reading:
    """Curves of every axis that may shrink and that the statistics show."""
    anatomy = model.anatomy
    scores: dict[Any, Any] = {}
    curves = []
    for axis in anatomy.public_axes():
        symbols = tied_axes(anatomy.family, axis.symbol)
        if axis.name in _OUTSIDE or axis.symbol in fixed or refusal(anatomy, axis):
            continue
        values = _values(axis, sizes)
        live = [s for s in symbols if s in anatomy.live]
        try:
            found = MEASURED[CRITERION](anatomy, stats, live, anatomy.sizes, model.read)
        except UsageError:
            continue  # the walk did not show this axis: it keeps its size
        whole = sum(_governed(anatomy, axis.symbol, scope, layers) for scope in anatomy.scopes[axis.symbol])
        if len(values) > 1 and whole:
            lost = np.mean([_lost(anatomy, found, s, values, layers) for s in live], axis=0)
            curves.append(Curve(axis, symbols, values, lost, float(whole)))
            scores |= {key: value for key, value in found.items() if key[0] == axis.symbol}
    return Reading(scores, tuple(curves))


def _values(axis: PublicAxis, sizes: Mapping[str, int]) -> NDArray[np.int64]:
    """Sizes of the axis' own symbol that kernels like, rising, up to the present one."""
    now, outer = sizes[axis.symbol], math.prod(sizes[s] for s in axis.symbols[:-1])
    step = kernel_step(axis, now * outer, outer)
    values = np.unique(np.r_[np.arange(step, now + 1, step), now])
    return values[values >= max(1, math.ceil(now * FLOOR))]


def _lost(
    anatomy: Anatomy, scores: Scores, symbol: str, values: NDArray[np.int64], layers: frozenset[int]
) -> NDArray[np.float64]:
    total = np.zeros(len(values))
    for scope in anatomy.scopes[symbol]:
        energy = np.sort(scores[symbol, scope] ** 2, axis=-1)[..., ::-1].cumsum(-1)
        whole = float(energy[..., -1].sum())
        kept = energy.reshape(-1, energy.shape[-1])[:, values - 1].sum(0)
        if whole > 0:
            total += _governed(anatomy, symbol, scope, layers) * (1 - kept / whole)
    return np.maximum(total, 0.0)


def _governed(anatomy: Anatomy, symbol: str, scope: str, layers: frozenset[int]) -> int:
    """How many of the layers that stay a scope's kept units govern."""
    shared = anatomy.family.shared
    candidates = anatomy.shared_users if shared is not None and symbol in shared.axes else range(anatomy.n_layers)
    return sum(1 for i in candidates if i in layers and anatomy.scope(symbol, i) == scope)


class _Walk:
    """Sizes on their way down (or up again)."""

    def __init__(
        self, model: Model, sizes: dict[str, int], curves: tuple[Curve, ...], layers: frozenset[int], budget: Budget
    ) -> None:
        self.model, self.sizes, self.curves, self.layers, self.budget = model, sizes, curves, layers, budget
        self.at = [len(c.values) - 1 for c in curves]

    def used(self) -> float:
        return float(self.budget.used(self.model, self.sizes, self.layers))

    def public(self, curve: Curve) -> int:
        return math.prod(self.sizes[s] for s in curve.axis.symbols)

    def step(self, *, down: bool) -> bool:
        """Take the best step; False when there is none. Down: least lost per share freed; up: most won that fits."""
        moves = list(self._moves(down))
        if not moves:
            return False
        options = [self._with(m) for m in moves]
        trial = {symbol: np.array([o[symbol] for o in options]) for symbol in self.sizes}
        used = np.broadcast_to(self.budget.used(self.model, trial, self.layers), len(moves))
        freed = self.used() - used
        lost = np.array([self._lost(m) for m in moves])
        if down:
            # what is freed beyond the budget is worth nothing
            useful = np.minimum(freed, self.used() - 1)
            price = np.where(freed > 0, lost / np.where(freed > 0, useful, 1.0), np.inf)
        else:
            price = np.where((freed < 0) & (used <= 1), lost, np.inf)
        best = int(price.argmin())
        if not np.isfinite(price[best]) or (not down and price[best] >= 0):
            return False
        self.sizes = options[best]
        for i, j in moves[best].items():
            self.at[i] = j
        return True

    def _lost(self, move: Mapping[int, int]) -> float:
        """Importance a move gives up; negative where it wins some back."""
        return float(sum(self.curves[i].lost[j] - self.curves[i].lost[self.at[i]] for i, j in move.items()))

    def _with(self, move: Mapping[int, int]) -> dict[str, int]:
        out = dict(self.sizes)
        for i, j in move.items():
            out |= dict.fromkeys(self.curves[i].symbols, int(self.curves[i].values[j]))
        return out

    def _moves(self, down: bool) -> Iterator[dict[int, int]]:
        """The next size of each axis that the config can say; pairs of axes where neighbours alone cannot be said."""
        stuck = []
        for i in range(len(self.curves)):
            order = self._beyond(i, down)
            ok = self._sayable([i], [order]) if len(order) else np.zeros(0, dtype=bool)
            if ok.any():
                yield {i: int(order[ok.argmax()])}
            if len(order) and not ok[0]:
                stuck.append(i)
        for i, k in itertools.combinations(stuck, 2):
            first, second = self._beyond(i, down), self._beyond(k, down)
            ok = self._sayable([i, k], [first, second])
            if ok.any():
                # the pair nearest by: few steps on both axes
                far = np.add.outer(np.arange(len(first)), np.arange(len(second)))
                a, b = np.unravel_index(int(np.where(ok, far, far.max() + 1).argmin()), far.shape)
                yield {i: int(first[a]), k: int(second[b])}

    def _beyond(self, i: int, down: bool) -> NDArray[np.int64]:
        """Indices of an axis' sizes in the direction of the walk, nearest first."""
        return np.arange(self.at[i] - 1, -1, -1) if down else np.arange(self.at[i] + 1, len(self.curves[i].values))

    def _sayable(self, axes: list[int], order: list[NDArray[np.int64]]) -> NDArray[np.bool_]:
        """Which combinations of sizes the config can express; shape (candidates of each axis ...)."""
        anatomy, trial = self.model.anatomy, dict[str, Any](self.sizes)
        grids = np.meshgrid(*(self.curves[i].values[o] for i, o in zip(axes, order, strict=True)), indexing="ij")
        for i, grid in zip(axes, grids, strict=True):
            trial |= dict.fromkeys(self.curves[i].symbols, grid)
        ok = expressible(anatomy.family, trial, anatomy.config, anatomy.live)
        return np.broadcast_to(ok, grids[0].shape).astype(bool)
