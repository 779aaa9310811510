"""Importance: one criterion a file. The registry below is the list users see."""

from __future__ import annotations

from secateur.importance import first, magnitude, random
from secateur.importance.base import Criterion, Scores, changed_axes, keep_best

CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude.score,
    "random": random.score,
    "first": first.score,
}

__all__ = ["CRITERIA", "Criterion", "Scores", "changed_axes", "keep_best"]
