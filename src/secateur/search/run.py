"""search: a model, text and a budget in; a plan that `prune` takes and a record of the search out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.calibration.stats import Stats
from secateur.model import Model
from secateur.pruning.plan import Plan
from secateur.search.arena import Arena
from secateur.search.bench import Bench
from secateur.search.outcome import Outcome
from secateur.search.prepared import Progress, prepared
from secateur.search.record import record
from secateur.search.settings import Files, Settings
from secateur.search.strategies import STRATEGIES


@dataclass(frozen=True, slots=True)
class Found:
    """``plan`` for `prune`; ``record``: the search as a document; ``stats``: what units are scored on."""

    plan: Plan
    record: dict[str, Any]
    outcome: Outcome
    stats: Stats


def search(
    model: Model,
    texts: Sequence[str | Path],
    settings: Settings,
    files: Files | None = None,
    *,
    stats: Stats | None = None,
    restart: bool = False,
    watch: Callable[[Arena], None] = lambda arena: None,
    progress: Progress = lambda label, done, total: None,
) -> Found:
    """The best shape the strategy finds for ``model`` within the budget. Under torchrun every process calls this.

    Raises UsageError for what does not fit together, BudgetError when no shape fits.
    """
    arena = prepared(model, texts, settings, files, stats=stats, restart=restart, watch=watch, progress=progress)
    try:
        outcome = STRATEGIES[settings.strategy](arena)
    finally:
        if arena.journal is not None:
            arena.journal.close()
    assert arena.bench.stats is not None
    plan = arena.plan(outcome.winner, _notes(settings, arena.bench, outcome))
    about = {"text": [str(t) for t in texts], **_about(settings)}
    return Found(plan, record(arena, outcome, plan, settings.strategy, about), outcome, arena.bench.stats)


def _notes(settings: Settings, bench: Bench, outcome: Outcome) -> list[str]:
    how = f"--strategy {settings.strategy} --seed {settings.seed}"
    return [
        f"found by secateur search {how}, ranked at stage {outcome.stage.name}",
        f"cut it with --score {bench.criterion} on the statistics of the search, as it was measured",
        *outcome.notes,
    ]


def _about(settings: Settings) -> dict[str, Any]:
    return {
        "wanted": dict(settings.wanted),
        "seed": settings.seed,
        "seconds": settings.seconds,
        "effort": settings.effort.to_json(),
        "axes": None if settings.axes is None else list(settings.axes),
        "depth": settings.depth,
        "samples": settings.samples,
        "lessons": settings.lessons,
        "length": settings.length,
        "context": settings.workload.context,
        "batch": settings.workload.batch,
    }


__all__ = ["Files", "Found", "Settings", "search"]
