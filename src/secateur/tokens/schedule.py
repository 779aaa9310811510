"""From a share of operations to what every location keeps.

Paper's formula (arXiv 2410.14725, derived): L equal layers, a location removes the share p of its tokens after its
layer has read them, a head worth ``head`` layers reads what is left at the end:

    saving = 1 - (sum over layers of prod over locations before it of (1 - p) + head * prod over all) / (L + head)

Ours: the operations each layer of this model really takes at its number of tokens (attention grows with its square),
those of matching included, the head for the one token a prompt needs. Both fall with p, so bisection finds p. Locations
may differ: 1 - p_l = exp(-s * strength_l), at least 1/2, with one s for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from secateur.errors import UsageError
from secateur.tokens.choice import kept
from secateur.tokens.cost import Costs
from secateur.tokens.settings import LEAST, TokenReduction

#: Locations of the paper, by number of layers; other depths get the same spread.
PUBLISHED: dict[int, tuple[int, ...]] = {
    64: (12, 17, 22, 27, 32, 37, 42),
    48: (10, 15, 20, 25, 30, 35),
}
_STEPS = 60
N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Location i stands behind layer ``locations[i]`` and keeps the share ``ratios[i]`` of its tokens."""

    locations: tuple[int, ...]
    ratios: tuple[float, ...]

    def tokens(self, n: int, layers: int) -> list[int]:
        """Whole tokens that each layer reads of a prompt of ``n``."""
        return _read(self, n, layers, kept)

    def left(self, n: int) -> int:
        """Tokens that are left behind the last location."""
        for ratio in self.ratios:
            n = kept(n, ratio)
        return n


def _read(schedule: Schedule, n: N, layers: int, keep: Callable[[N, float], N]) -> list[N]:
    ratio = dict(zip(schedule.locations, schedule.ratios, strict=True))
    found = []
    for layer in range(layers):
        found.append(n)
        if layer in ratio:
            n = keep(n, ratio[layer])
    return found


def paper_share(layers: int, schedule: Schedule, head: float = 0.0) -> float:
    """Operations left, in the paper's equal layers; ``head`` in units of one layer."""
    read = _read(schedule, 1.0, layers, lambda n, ratio: n * ratio)
    return (sum(read) + head * math.prod(schedule.ratios)) / (layers + head)


def share(costs: Costs, schedule: Schedule, n: int, *, matches: bool) -> float:
    """Operations left of a prompt of ``n`` tokens, in whole tokens and this model's layers."""
    read = schedule.tokens(n, len(costs.layers))
    matched = [read[i] for i, r in zip(schedule.locations, schedule.ratios, strict=True) if r < 1] if matches else []
    return costs.operations(read, matched) / costs.operations([n] * len(read))


def _smooth_share(costs: Costs, schedule: Schedule, n: int, matches: bool) -> float:
    read = _read(schedule, float(n), len(costs.layers), lambda m, ratio: m * ratio)
    matched = [read[i] for i in schedule.locations] if matches else []
    return costs.operations(read, matched) / costs.operations([float(n)] * len(read))


def paper_head(costs: Costs, n: int) -> float:
    """What a head over every token weighs, in mean layers: the paper's second convention."""
    body = sum(layer.operations(n) for layer in costs.layers) / len(costs.layers)
    return costs.head * n / body


def default_locations(costs: Costs, after: str = "any") -> tuple[int, ...]:
    """The paper's, or spread like them: from a fifth to two thirds of the depth, a twelfth apart.

    Each moves up to the nearest layer of the kind asked for that lies before it; never behind the last layer.
    """
    depth = len(costs.layers)
    wanted = PUBLISHED.get(depth) or range(round(depth / 5), round(2 * depth / 3) + 1, max(1, round(depth / 12)))
    allowed = [i for i, layer in enumerate(costs.layers[:-1]) if _is(layer.recurrent, layer.attends, after)]
    if not allowed:
        raise UsageError(
            f"token reduction after {after} layers: this model has none before its last layer",
            hint="after='any', or name locations",
        )
    return tuple(sorted({max((a for a in allowed if a <= w), default=allowed[0]) for w in wanted}))


def _is(recurrent: bool, attends: bool, after: str) -> bool:
    return {"recurrent": recurrent, "attention": attends, "any": recurrent or attends}[after]


def solve(costs: Costs, asked: TokenReduction, n: int, *, matches: bool) -> Schedule:
    """The schedule of a prompt of ``n`` tokens. Raises UsageError when no schedule gets down to the share asked for."""
    locations = locations_of(costs, asked)
    if asked.flops is None:
        return Schedule(locations, asked.ratios)
    if asked.flops == 1:
        return Schedule(locations, (1.0,) * len(locations))
    measured: dict[str, Callable[[Schedule], float]] = {
        "layers": lambda s: _smooth_share(costs, s, n, matches),
        "paper": lambda s: paper_share(len(costs.layers), s),
        "paper-head": lambda s: paper_share(len(costs.layers), s, paper_head(costs, n)),
    }
    strengths = asked.strengths or (1.0,) * len(locations)
    return _bisect(measured[asked.counting], asked.flops, locations, strengths, n)


def locations_of(costs: Costs, asked: TokenReduction) -> tuple[int, ...]:
    """The locations asked for, or the default ones. Raises UsageError for layers behind which nothing is saved."""
    locations = asked.locations or default_locations(costs, asked.after)
    if locations[-1] >= len(costs.layers) - 1:
        raise UsageError(
            f"token reduction behind layer {locations[-1]}: the model has {len(costs.layers)} layers and nothing "
            "is saved behind the last",
            hint=f"locations up to {len(costs.layers) - 2}",
        )
    return locations


def _bisect(
    left: Callable[[Schedule], float], target: float, locations: tuple[int, ...], strengths: Sequence[float], n: int
) -> Schedule:
    def at(s: float) -> Schedule:
        return Schedule(locations, tuple(max(LEAST, math.exp(-s * x)) for x in strengths))

    low, high = 0.0, -math.log(LEAST) / min(x for x in strengths if x > 0)
    if left(at(high)) > target:
        raise UsageError(
            f"token reduction to {target:.0%} of the operations: with half of the tokens gone at each of layers "
            f"{', '.join(map(str, locations))}, {left(at(high)):.1%} are left of a prompt of {n} tokens",
            hint="ask for a larger share, or name earlier or more locations",
        )
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if left(at(middle)) > target else (low, middle)
    return at(high)


__all__ = [
    "PUBLISHED", "Schedule", "default_locations", "locations_of", "paper_head", "paper_share", "share", "solve",
]  # fmt: skip
