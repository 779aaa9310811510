"""Seconds of one kind of block at any size, from those measured at some sizes.

    t(x) = a + b * parameters(x) + c * operations(x) + r(x)          a, b, c >= 0

The first three terms are the roofline's causes of time, fitted by non-negative least squares; r interpolates what they
leave at the measured sizes (linear radial basis functions, along one axis: straight lines), so measured sizes come out
as measured, also where they do not form a full lattice because the config cannot say every combination.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Surface:
    """``points`` (n, axes) relative sizes, ``causes`` (n, 2) parameters and operations, ``seconds`` (n,)."""

    def __init__(self, points: NDArray[np.float64], causes: NDArray[np.float64], seconds: NDArray[np.float64]) -> None:
        from scipy.interpolate import RBFInterpolator
        from scipy.optimize import nnls

        self.scale = np.maximum(causes.max(0), 1e-300)
        design = self._design(causes)
        self.weights: NDArray[np.float64] = nnls(design, seconds)[0]
        left = seconds - design @ self.weights
        self.rest: Any = RBFInterpolator(points, left, kernel="linear") if points.shape[1] else None
        self.mean = float(left.mean())

    def __call__(self, points: NDArray[np.float64], causes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Seconds at ``points`` (m, axes) with ``causes`` (m, 2); shape (m,), never below zero."""
        rest = self.mean if self.rest is None else self.rest(points)
        return np.maximum(self._design(causes) @ self.weights + rest, 0.0)

    def _design(self, causes: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack([np.ones(len(causes)), causes / self.scale])
