"""Strategies, one a file. ``STRATEGIES`` is the list users see."""

from __future__ import annotations

from secateur.search.strategies.base import Agreement, Effort, Outcome, Strategy

STRATEGIES: dict[str, Strategy] = {}

__all__ = ["STRATEGIES", "Agreement", "Effort", "Outcome", "Strategy"]
