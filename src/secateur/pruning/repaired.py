"""Cut and repair in one step: what appears at the destination is the repaired child, or nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from secateur.calibration.stats import Stats
from secateur.checkpoint import publish
from secateur.errors import UsageError
from secateur.model import Model, open_model
from secateur.pruning.plan import Plan
from secateur.pruning.repair.run import RepairSettings, repair
from secateur.pruning.run import Settings, prune

#: Told what is being done, how much of it is done, and of how much.
Progress = Callable[[str, int, int], None]


def prune_repaired(
    model: Model,
    plan: Plan,
    out: Path,
    settings: Settings,
    windows: torch.Tensor,
    repairs: RepairSettings,
    *,
    stats: Stats | None = None,
    texts: Sequence[str] | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Model:
    """:func:`prune` and then :func:`repair` on ``windows`` (samples, tokens); returns the result, opened.

    Takes the disk space of two children for a while. Raises what the two raise, and UsageError for a masked cut.
    """
    if settings.mask:
        raise UsageError("a masked twin is not repaired: it stands for the cut as it is")
    told = progress or (lambda *_: None)
    with publish(out, overwrite=settings.overwrite) as staging:
        unrepaired = staging / "unrepaired"
        with prune(
            model,
            plan,
            unrepaired,
            replace(settings, overwrite=False),
            stats=stats,
            texts=texts,
            progress=lambda done, total: told("writing", done, total),
        ) as child:
            repaired, _ = repair(
                child,
                model,
                windows,
                staging / "repaired",
                repairs,
                about=about,
                progress=lambda done, total: told("repairing", done, total),
            )
            with repaired:
                pass
        shutil.rmtree(unrepaired)
        for path in list((staging / "repaired").iterdir()):
            path.rename(staging / path.name)
        (staging / "repaired").rmdir()
    return open_model(out)


__all__ = ["prune_repaired"]
