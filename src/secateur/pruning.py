"""The function behind ``secateur.prune``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from secateur.calibrate.stats import Stats
    from secateur.model import Model
    from secateur.prune.plan import Plan


def prune(
    model: Model, plan: Plan | Mapping[str, int], out: str | Path, *, stats: Stats | None = None, **settings: Any
) -> Model:
    """Cut ``model`` to ``plan`` (or to public sizes) and write the checkpoint to ``out``; returns it opened.

    ``stats``: what measured criteria score on. Other keyword arguments are the fields of
    :class:`secateur.prune.run.Settings`.
    """
    from secateur.prune.plan import make_plan
    from secateur.prune.run import Settings
    from secateur.prune.run import prune as run

    made = make_plan(model, keep=plan) if isinstance(plan, Mapping) else plan
    return run(model, made, Path(out), Settings(**settings), stats=stats)
