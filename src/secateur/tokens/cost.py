"""Operations of reading a prompt whose tokens leave on the way, in closed form from the config.

Per layer and prompt of ``n`` tokens, as :mod:`secateur.search.resources.flops` counts them (a multiply-add is two):

    cost(n) = per_token * n + per_pair * (pairs of a query and a key it sees)

A location with m tokens and a method that matches adds 2 d floor(m/2) ceil(m/2) for the similarities. The head computes
one token per prompt, whatever is removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from secateur.anatomy import expr
from secateur.model import Model
from secateur.search.resources import flops
from secateur.search.resources.base import Workload
from secateur.search.resources.cache import caches


@dataclass(frozen=True, slots=True)
class Layer:
    """``window``: keys a query sees at most; None: all before it. ``recurrent``, ``attends``: what the layer holds."""

    per_token: float
    per_pair: float
    window: int | None
    recurrent: bool
    attends: bool

    def operations(self, n: float) -> float:
        """Of ``n`` tokens; n may be fractional."""
        w = n if self.window is None else min(self.window, n)
        return self.per_token * n + self.per_pair * (w * (w + 1) / 2 + (n - w) * w)


@dataclass(frozen=True, slots=True)
class Costs:
    """All layers of a model, its head, and the width ``hidden`` that similarities are taken over.

    ``stem``: operations outside the layers on every token, a projection behind the embedding.
    """

    layers: tuple[Layer, ...]
    head: float
    hidden: int
    stem: float = 0.0

    def operations(self, tokens: Sequence[float], matched: Sequence[float] = ()) -> float:
        """``tokens`` that each layer reads; ``matched``: tokens at every location of a method that matches."""
        read = sum(layer.operations(n) for layer, n in zip(self.layers, tokens, strict=True))
        return read + self.stem * tokens[0] + self.head + sum(matching(m, self.hidden) for m in matched)


def matching(tokens: float, hidden: int) -> float:
    """Operations of comparing one half of ``tokens`` with the other (odd numbers: the smaller with the larger)."""
    return hidden * tokens * tokens / 2 if tokens % 2 == 0 or tokens % 1 else hidden * (tokens * tokens - 1) / 2


def costs(model: Model) -> Costs:
    """Read off the model's own formula at contexts of one and two tokens; needs no weights."""
    anatomy = model.anatomy
    one, two = (flops.prefill(model, Workload(context=n)) for n in (1, 2))
    base = [float(meter(anatomy.sizes, frozenset())) for meter in (one, two)]
    blocks = caches(anatomy)
    found = []
    for i in range(anatomy.n_layers):
        a, b = (float(m(anatomy.sizes, frozenset({i}))) - x for m, x in zip((one, two), base, strict=True))
        sizes = anatomy.sizes
        here = [cache for cache, places in blocks.items() if i in places]
        windows = [int(w) for c in here if c.window and (w := anatomy.config.get(c.window))]
        pair = b - 2 * a  # cost(1) = t + p, cost(2) = 2 t + 3 p where the window holds two
        if windows and min(windows) < 2:
            pair = 0.0
        found.append(
            Layer(
                per_token=a - pair,
                per_pair=pair,
                window=min(windows, default=None) if pair else None,
                recurrent=any(expr.evaluate(c.state, sizes) or expr.evaluate(c.conv, sizes) for c in here),
                attends=any(expr.evaluate(c.per_token, sizes) for c in here),
            )
        )
    stem = base[1] - base[0]
    return Costs(tuple(found), base[0] - stem, int(anatomy.sizes["d"]), stem)


def described(network: Any) -> Model:
    """The anatomy of a loaded transformers model, from its own config. Raises SecateurError for unknown families."""
    from pathlib import Path

    raw = {**network.config.to_dict(), "architectures": [type(network).__name__]}
    return Model(type(network).__name__, Path(), raw, None)


__all__ = ["Costs", "Layer", "costs", "described", "matching"]
