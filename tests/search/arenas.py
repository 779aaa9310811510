"""Tiny arenas: a family's smallest model, random tokens, a budget of parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from secateur.calibration.stats import Stats, calibrate
from secateur.model import Model
from secateur.search.arena import Arena
from secateur.search.bench import Bench
from secateur.search.budget import make_budget
from secateur.search.candidates import Space
from secateur.search.journal import Journal
from secateur.search.outcome import Effort

EFFORT = Effort(initial=4, generations=3, offspring=4, tokens=(24, 48), finalists=2, heal=0)
_STATS: dict[str, Stats] = {}


def windows(model: Model, count: int, seed: int = 0, length: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.anatomy.sizes["v"], (count, length), generator=generator)


def statistics(model: Model) -> Stats:
    """Of the same windows; walked once per model."""
    if model.config_sha256 not in _STATS:
        _STATS[model.config_sha256] = calibrate(model, windows(model, 6))
    return _STATS[model.config_sha256]


def arena_of(
    model: Model, *, share: str = "70%", effort: Effort = EFFORT, work: Path | None = None, **options: Any
) -> Arena:
    """Every axis and every layer free; ``work``: with a journal there."""
    space = Space(model, make_budget(model, {"params": share}), order=range(model.anatomy.n_layers))
    bench = Bench(model, windows(model, 6), lessons=windows(model, 6, seed=1), stats=statistics(model), batch=3)
    journal = None if work is None else Journal(work, {"model": model.config_sha256})
    return Arena(bench, space, effort, journal=journal, **options)


class Counted:
    """Counts what a bench measures, by shape and stage."""

    def __init__(self, arena: Arena) -> None:
        self.calls = 0
        self._compare = arena.bench.compare
        arena.bench.compare = self  # type: ignore[method-assign, assignment]

    def __call__(self, module: Any, at: Any) -> tuple[float, float]:
        self.calls += 1
        return self._compare(module, at)
