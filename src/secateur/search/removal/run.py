"""shed: a model, text and what may go in; a plan that `prune` takes out.

``METHODS`` is the list users see; each takes stages of a pool with how many of it go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from secateur.calibration.text import windows_of
from secateur.errors import UsageError
from secateur.model import Model
from secateur.pruning.plan import Plan, make_plan
from secateur.search.removal.found import Found, Watch, silent
from secateur.search.removal.journal import Journal
from secateur.search.removal.masked import Masked, Measure, measure
from secateur.search.removal.places import Ground
from secateur.search.strategies import bonsai, evopress, exhaustive, shedder, shortgpt


@dataclass(frozen=True, slots=True)
class Settings:
    """``stages``: "mamba & mlp:4 + scan:2"; ``group``: channels that go together. ``samples`` windows of ``length``
    tokens, ``batch`` at a time. ``by``: what is measured; ``device`` and ``dtype``: where and in what.
    """

    stages: str
    method: str = "greedy"
    by: str = "nll"
    group: int | None = None
    samples: int = 32
    length: int = 256
    batch: int = 2
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"


Method = Callable[[Masked, Sequence[Ground], Measure, int, Watch], Found]

METHODS: Mapping[str, Method] = {
    "greedy": lambda work, grounds, by, seed, watch: shedder.find(work, grounds, measure=by, watch=watch),
    "one-shot": lambda work, grounds, by, seed, watch: shortgpt.find(work, _one(grounds), measure=by, watch=watch),
    "evopress": lambda work, grounds, by, seed, watch: evopress.find(
        work, _one(grounds), measure=by, seed=seed, watch=watch
    ),
    "bonsai": lambda work, grounds, by, seed, watch: bonsai.find(
        work, _one(grounds), measure=by, seed=seed, watch=watch
    ),
    "exhaustive": lambda work, grounds, by, seed, watch: exhaustive.find(work, _one(grounds), measure=by, watch=watch),
}


def shed(
    model: Model,
    texts: Sequence[str | Path],
    settings: Settings,
    *,
    journal: Path | None = None,
    watch: Watch = silent,
) -> tuple[Plan, Found]:
    """What goes, as a plan and as it was found. ``journal``: a file from which an interrupted search resumes.

    The whole model is in memory. Raises UsageError for options that mean nothing, BudgetError when too much is to go.
    """
    if settings.method not in METHODS:
        raise UsageError(f"method {settings.method!r} is unknown; choose one of {', '.join(METHODS)}")
    by, grounds = measure(settings.by), shedder.stages(model, settings.stages, group=settings.group)
    windows = windows_of(model, texts, samples=settings.samples, length=settings.length, seed=settings.seed)
    place = {"device": settings.device, "dtype": getattr(torch, settings.dtype)}
    work = Masked(model, windows, batch=settings.batch, **place)
    if journal is not None:
        work.journal = Journal(journal, model, work.batches)
    try:
        found = METHODS[settings.method](work, grounds, by, settings.seed, watch)
    finally:
        if work.journal is not None:
            work.journal.close()
    how = f"found by secateur shed --method {settings.method} --by {by} --stages '{settings.stages}'"
    plan = make_plan(model, removed=[str(u) for u in sorted(found.removal)])
    note = f"{how} --seed {settings.seed}: {by} {found.cost:.4f} on its text"
    return replace(plan, notes=(note, *plan.notes)), found


def _one(grounds: Sequence[Ground]) -> Ground:
    if len(grounds) != 1:
        raise UsageError(f"{len(grounds)} stages: only greedy goes in stages", hint="join the pools with & instead")
    return grounds[0]


__all__ = ["METHODS", "Settings", "shed"]
