"""Strategies, one a file. ``STRATEGIES`` is the list users see."""

from __future__ import annotations

from secateur.search.strategies import (
    compressor,
    darwinlm,
    evolutionary,
    minitron,
    ten_largest,
    uniform,
)
from secateur.search.strategies.base import Agreement, Effort, Outcome, Strategy

STRATEGIES: dict[str, Strategy] = {
    "evolutionary": evolutionary.search,
    "minitron": minitron.search,
    "darwinlm": darwinlm.search,
    "compressor": compressor.search,
    "ten-largest": ten_largest.search,
    "uniform": uniform.search,
}

__all__ = ["STRATEGIES", "Agreement", "Effort", "Outcome", "Strategy"]
