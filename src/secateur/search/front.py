"""The Pareto front: shapes that no other one beats in everything at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.search.stages import Score, Shape, Stage


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement. ``costs``: resource -> what the shape takes."""

    shape: Shape
    stage: Stage
    score: Score
    costs: Mapping[str, float]

    @property
    def level(self) -> tuple[str, int, int]:
        """What must be equal for two scores to be compared: stage, tokens of healing, windows read."""
        return self.stage.name, self.stage.heal, len(self.stage.windows)


def on_front(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of ``values`` (n, m), smaller being better, no other row beats: none is as good everywhere and better
    somewhere. Of equal rows all are on the front."""
    out = np.ones(len(values), dtype=bool)
    for i, row in enumerate(values):
        out[i] = not ((values <= row).all(1) & (values < row).any(1)).any()
    return out


def fronts(points: Sequence[Point]) -> list[bool]:
    """For every point whether it is on the front of its level, by KL and all costs."""
    out = [False] * len(points)
    for level in dict.fromkeys(p.level for p in points):
        at = [i for i, p in enumerate(points) if p.level == level]
        rows = np.array([[points[i].score.kl, *points[i].costs.values()] for i in at], dtype=np.float64)
        for i, on in zip(at, on_front(rows), strict=True):
            out[i] = bool(on)
    return out


def to_json(point: Point, front: bool) -> dict[str, Any]:
    return {
        "shape": point.shape.to_json(),
        "text": str(point.shape),
        "stage": point.stage.name,
        "heal": point.stage.heal,
        "windows": len(point.stage.windows),
        "kl": _finite(point.score.kl),
        "nll": _finite(point.score.nll),
        "costs": dict(point.costs),
        "front": front,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
