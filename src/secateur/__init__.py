"""Secateur: make language models smaller and keep them good.

>>> import secateur as sc
>>> parent = sc.open("checkpoint/")
>>> plan = sc.plan(parent, params="60%")
>>> child = sc.prune(parent, plan, out="child/")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from secateur.errors import SecateurError
from secateur.model import Model
from secateur.model import open_model as open
from secateur.prune.plan import Plan
from secateur.prune.plan import make_plan as _make_plan
from secateur.prune.run import Settings
from secateur.prune.run import prune as _prune

try:
    __version__ = version("secateur")
except PackageNotFoundError:  # running from a source tree that is not installed
    __version__ = "0"


def plan(
    model: Model,
    *,
    params: str | int | None = None,
    bytes: str | int | None = None,
    layers: Sequence[int] | int | None = None,
    **keep: int,
) -> Plan:
    """Choose a shape: ``plan(m, params="60%")``, ``plan(m, hidden=3072, ffn=12288, ssm_heads=112)``, or both.

    Raises InexpressibleError for shapes the config cannot say, BudgetError when nothing fits.
    """
    return _make_plan(model, params=params, bytes_=bytes, keep=keep, layers=layers)


def prune(model: Model, plan: Plan | Mapping[str, int], out: str | Path, **settings: Any) -> Model:
    """Cut ``model`` to ``plan`` (or to public sizes) and write the checkpoint to ``out``.

    Keyword arguments are the fields of :class:`Settings`. Returns the child, opened.
    """
    made = plan if isinstance(plan, Plan) else _make_plan(model, keep=plan)
    return _prune(model, made, Path(out), Settings(**settings))


__all__ = ["Model", "Plan", "SecateurError", "Settings", "__version__", "open", "plan", "prune"]
