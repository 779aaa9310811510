"""Secateur: make language models smaller and keep them good.

>>> import secateur as sc
>>> parent = sc.open("checkpoint/")
>>> plan = sc.plan(parent, params="60%")
>>> child = sc.prune(parent, plan, out="child/")

Importing this package is cheap: PyTorch is loaded by the first call that needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.errors import SecateurError
from secateur.pruning import prune

if TYPE_CHECKING:
    from secateur.calibrate.stats import Stats
    from secateur.model import Model
    from secateur.prune.plan import Plan

try:
    __version__ = version("secateur")
except PackageNotFoundError:  # running from a source tree that is not installed
    __version__ = "0"


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
    from secateur.prune.plan import make_plan

    return make_plan(model, params=params, bytes_=bytes, keep=keep, layers=layers, stats=stats, layer_score=layer_score)


__all__ = ["SecateurError", "__version__", "open", "plan", "prune"]
