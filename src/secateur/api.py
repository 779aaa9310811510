"""The functions behind ``import secateur as sc``; each loads what it needs when it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from secateur.calibration.stats import Stats
    from secateur.model import Model
    from secateur.pruning.plan import Plan


def open(source: str | Path, *, revision: str | None = None) -> Model:
    """Open a checkpoint folder, a config.json or a hub id: config and tensor index only, no weights.

    Raises SecateurError when the files are not a checkpoint this library can read.
    """
    from secateur.model import open_model

    return open_model(source, revision=revision)


def plan(
    model: Model,
    *,
    params: str | int | None = None,
    bytes: str | int | None = None,
    layers: Sequence[int] | int | None = None,
    stats: Stats | None = None,
    layer_score: str = "block-influence",
    **keep: int,
) -> Plan:
    """Choose a shape: ``plan(m, params="60%")``, ``plan(m, hidden=3072, ffn=12288, ssm_heads=112)``, or both.

    With ``stats`` sizes follow importance, and ``layers`` may be a number in any model (see ``layer_score``).
    Raises InexpressibleError for shapes the config cannot say, BudgetError when nothing fits.
    """
    from secateur.pruning.plan import make_plan

    return make_plan(model, params=params, bytes_=bytes, keep=keep, layers=layers, stats=stats, layer_score=layer_score)


def prune(
    model: Model, plan: Plan | Mapping[str, int], out: str | Path, *, stats: Stats | None = None, **settings: Any
) -> Model:
    """Cut ``model`` to ``plan`` (or to public sizes) and write the checkpoint to ``out``; returns it opened.

    ``stats``: what measured criteria score on. Other keyword arguments are the fields of
    :class:`secateur.pruning.run.Settings`.
    """
    from secateur.pruning.plan import make_plan
    from secateur.pruning.run import Settings
    from secateur.pruning.run import prune as run

    made = make_plan(model, keep=plan) if isinstance(plan, Mapping) else plan
    return run(model, made, Path(out), Settings(**settings), stats=stats)
