"""Stands in for a model in memory: removing units costs the sum of their values, and a penalty for pairs if asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

from secateur.model import Model
from secateur.pruning.removed import Unit, canonical
from secateur.search.removal.masked import MEASURES


class Additive:
    """``values``: unit -> what it costs; ``noise``: (batch, removal) -> what a batch adds."""

    def __init__(
        self,
        model: Model,
        values: Mapping[Unit, float],
        batches: int = 4,
        noise: Callable[[int, frozenset[Unit]], float] = lambda batch, removal: 0.0,
    ) -> None:
        self.model, self.anatomy, self.values, self.noise = model, model.anatomy, values, noise
        self.batches = [torch.zeros(1, 8, dtype=torch.long)] * batches
        self.asked: list[frozenset[Unit]] = []

    def removal(self, units: Collection[Unit]) -> frozenset[Unit]:
        return canonical(units, self.anatomy)

    def costs(
        self,
        trials: Sequence[Collection[Unit]],
        *,
        base: Collection[Unit] = (),
        batches: Sequence[int] | None = None,
        **_: Any,
    ) -> dict[str, torch.Tensor]:
        chosen = range(len(self.batches)) if batches is None else batches
        removals = [self.removal(t) for t in trials]
        self.asked += removals
        rows = [sum(self.values[u] for u in r) + sum(self.noise(b, r) for b in chosen) / len(chosen) for r in removals]
        return dict.fromkeys(MEASURES, torch.tensor(rows, dtype=torch.float64))

    def influence(self, units: Sequence[Unit], **_: Any) -> torch.Tensor:
        """No help: all alike."""
        return torch.ones(len(units), dtype=torch.float64)
