"""Importance: one criterion a file. The two registries below are the lists users see.

``CRITERIA`` need weights at most; ``MEASURED`` need the statistics of a calibration walk.
"""

from __future__ import annotations

from secateur.importance import activation, contribution, first, flap, magnitude, random, taylor
from secateur.importance.base import Criterion, Measured, Scores, changed_axes, keep_best

CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude.score,
    "random": random.score,
    "first": first.score,
}
MEASURED: dict[str, Measured] = {
    "activation": activation.score,
    "balanced": activation.balanced,
    "contribution": contribution.score,
    "flap": flap.score,
    "taylor": taylor.score,
}


def default_score(measured: bool) -> str:
    """The criterion where none is named: the best one measured (benchmarks/README.md), or one that needs no text."""
    return "contribution" if measured else "magnitude"


__all__ = ["CRITERIA", "MEASURED", "Criterion", "Measured", "Scores", "changed_axes", "default_score", "keep_best"]
