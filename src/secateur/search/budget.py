"""Budgets as people write them: parameters, bytes, cache at a context length, latency; several at once.

"60%" or "0.6x" of what the parent takes, "4B", "350M" (counts), "2GiB", "900MB" (bytes), "12ms", "1.5s" (time)
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.errors import BudgetError, UsageError
from secateur.model import Model
from secateur.pruning.budget import parse_amount
from secateur.search.resources import RESOURCES, Meter, Resource, Workload

#: One sequence of the default context.
PLAIN = Workload()
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_LONG = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*(s|min|m|h)\s*", re.IGNORECASE)
_RELATIVE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*x\s*", re.IGNORECASE)
_TIME = re.compile(r"\s*(\d+(?:\.\d+)?(?:e-?\d+)?)\s*([a-zµ]+)\s*", re.IGNORECASE)


def parse_limit(text: str, whole: float, resource: Resource) -> float:
    """``text`` as an amount of ``resource``; ``whole`` is what the parent takes. Counts and bytes come out whole.

    Raises UsageError for anything else, and for amounts of zero or less.
    """
    relative = _RELATIVE.fullmatch(text)
    if relative:
        text = f"{100 * float(relative[1])!r}%"
    if resource.unit == "seconds":
        return _parse_time(text, whole, resource.name)
    amount = parse_amount(text, int(whole), resource.name if resource.unit == "bytes" else "params")
    return float(amount) if amount >= 2**63 else amount


def _parse_time(text: str, whole: float, name: str) -> float:
    value = math.nan
    if text.strip().endswith("%"):
        try:
            value = whole * float(text.strip()[:-1]) / 100
        except ValueError:
            value = math.nan
    match = _TIME.fullmatch(text)
    if match and match[2].lower() in _SECONDS:
        value = float(match[1]) * _SECONDS[match[2].lower()]
    if not math.isfinite(value):
        raise UsageError(f"--{name} {text!r} is no amount; write 0.6x, 60%, 12ms or 1.5s")
    if value <= 0:
        raise UsageError(f"--{name} {text!r} leaves nothing; give an amount above zero")
    return value


def parse_duration(text: str) -> float:
    """``30min``, ``2h``, ``90s`` -> seconds. Raises UsageError for anything else."""
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _LONG[match[2].lower()] if match else 0.0
    if not 0 < seconds < math.inf:
        raise UsageError(f"--budget {text!r} is no length of time; write 30min, 2h or 90s")
    return seconds


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``amount`` of ``resource``; ``whole``: what the parent takes, measured by the same ``meter``."""

    resource: Resource
    amount: float
    whole: float
    meter: Meter

    def to_json(self) -> dict[str, Any]:
        return {"resource": self.resource.name, "amount": self.amount, "parent": self.whole}


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits that a shape must keep all together. Sizes may be arrays of candidates."""

    limits: tuple[Limit, ...]

    def costs(self, sizes: Mapping[str, Any], layers: frozenset[int]) -> dict[str, Any]:
        """Resource -> what the shape takes."""
        return {limit.resource.name: limit.meter(sizes, layers) for limit in self.limits}

    def used(self, sizes: Mapping[str, Any], layers: frozenset[int]) -> Any:
        """Largest share of a limit that the shape takes; above 1 is over. Exactly 1 is within."""
        shares = [limit.meter(sizes, layers) / limit.amount for limit in self.limits]
        return shares[0] if len(shares) == 1 else np.maximum.reduce(np.broadcast_arrays(*shares))

    def fits(self, sizes: Mapping[str, Any], layers: frozenset[int]) -> Any:
        """Whether every limit is kept, compared in the limits' own units."""
        kept = [limit.meter(sizes, layers) <= limit.amount for limit in self.limits]
        return kept[0] if len(kept) == 1 else np.logical_and.reduce(np.broadcast_arrays(*kept))

    def missed(self, costs: Mapping[str, float], shape: str) -> BudgetError:
        """The error for a search whose smallest shape takes ``costs``."""
        listed = []
        for limit in self.limits:
            name, unit = limit.resource.name, limit.resource.unit
            listed.append(f"{name} {amount_text(costs[name], unit)} of {amount_text(limit.amount, unit)}")
        return BudgetError(
            f"no shape fits the budget; the smallest reachable takes {', '.join(listed)} ({shape})",
            hint="raise the budget, or let more axes or layers go",
        )


def amount_text(value: float, unit: str) -> str:
    """``value`` for people."""
    return f"{value * 1e3:,.3f} ms" if unit == "seconds" else f"{int(value):,}{' bytes' if unit == 'bytes' else ''}"


def make_budget(
    model: Model,
    wanted: Mapping[str, str | int | float],
    workload: Workload = PLAIN,
    *,
    measured: Mapping[str, Resource] | None = None,
) -> Budget:
    """A budget from resource names and amounts as people write them (or plain numbers).

    ``measured``: resources beyond the closed forms, such as those of a latency table. Raises UsageError for unknown
    names and amounts that cannot be read.
    """
    known = {**RESOURCES, **(measured or {})}
    if not wanted:
        raise UsageError(f"a search needs a budget; give at least one of {', '.join(known)}")
    anatomy, limits = model.anatomy, []
    for name, text in wanted.items():
        if name not in known:
            hint = "latencies need a table measured on the target machine" if not measured else None
            raise UsageError(f"there is no budget called {name!r}; known are {', '.join(known)}", hint=hint)
        meter = known[name].meter(model, workload)
        whole = float(meter(anatomy.sizes, frozenset(range(anatomy.n_layers))))
        amount = parse_limit(str(text), whole, known[name]) if isinstance(text, str) else text
        if amount <= 0:
            raise UsageError(f"--{name} {amount} leaves nothing; give an amount above zero")
        limits.append(Limit(known[name], amount, whole, meter))
    return Budget(tuple(limits))
