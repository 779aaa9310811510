"""From work to hours: one line per verb, its weights fitted once to measured runs.

    seconds = start + a F/flops + b (read/rate + written/rate) + c hashed/rate + e cast

``start``, a, c and e are of the code, the rates of the machine. They lie in ``fitted.json``, which
``benchmarks/scale/fit.py`` writes from its measurements (non-negative least squares on relative errors, in
processor seconds, which know no disk: b is 1). Without that file a, b and c are 1 and nothing else counts: a bound
from below.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from secateur.cost.machine import Machine
from secateur.cost.work import Work

TERMS = ("start", "compute", "disk", "hash", "cast")
FITTED = Path(__file__).with_name("fitted.json")


@dataclass(frozen=True, slots=True)
class Price:
    """``seconds`` on the machine asked about; ``gpu_seconds`` at a given rate of operations, over all GPUs."""

    seconds: float
    gpu_seconds: float
    memory: float
    disk: float


def terms(work: Work, machine: Machine) -> dict[str, float]:
    """Term -> seconds it would take alone."""
    return {
        "start": 1.0,
        "compute": work.flops / machine.flops,
        "disk": work.read / machine.read + work.written / machine.write,
        "hash": work.hashed / machine.hash,
        "cast": work.cast / 1e9,
    }


def price(verb: str, work: Work, machine: Machine, *, gpu_flops: float = 160e12) -> Price:
    """What ``work`` takes. ``gpu_flops``: operations a second that one GPU really does."""
    weights = weights_of(verb)
    seconds = sum(weights[name] * value for name, value in terms(work, machine).items())
    return Price(seconds, work.flops / gpu_flops, work.memory, work.disk)


def weights_of(verb: str) -> Mapping[str, float]:
    """Weight of each term for a verb."""
    plain = {name: float(name in ("compute", "disk", "hash")) for name in TERMS}
    return {**plain, **_fitted().get(verb, {})}


@cache
def _fitted() -> dict[str, dict[str, float]]:
    if not FITTED.exists():
        return {}
    found: dict[str, dict[str, float]] = json.loads(FITTED.read_text(encoding="utf-8"))["weights"]
    return found


__all__ = ["FITTED", "TERMS", "Price", "price", "terms", "weights_of"]
