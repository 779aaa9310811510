"""Secateur: make language models smaller and keep them good.

>>> import secateur as sc
>>> parent = sc.open("checkpoint/")
>>> stats = sc.calibrate(parent, "books/")
>>> plan = sc.plan(parent, stats, params="60%")
>>> child = sc.prune(parent, plan, stats=stats, repair="least-squares", out="child/")
>>> healed = sc.distill(child, "books/", teacher=parent, tokens="20M", out="healed/")
>>> page = sc.report([parent, child, healed], "heldout.txt", out="report.html")

Importing this package is cheap: PyTorch is loaded by the first call that needs it.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from secateur.api import (
    calibrate,
    cost,
    distill,
    evaluate,
    export,
    factorize,
    open,
    plan,
    prune,
    quantize,
    reduce_tokens,
    repair,
    report,
    schedule,
    search,
    shed,
    sparsify,
    verify,
)
from secateur.errors import SecateurError
from secateur.tokens.settings import TokenReduction

try:
    __version__ = version("secateur")
except PackageNotFoundError:  # running from a source tree that is not installed
    __version__ = "0"


__all__ = [
    "SecateurError",
    "TokenReduction",
    "__version__",
    "calibrate",
    "cost",
    "distill",
    "evaluate",
    "export",
    "factorize",
    "open",
    "plan",
    "prune",
    "quantize",
    "reduce_tokens",
    "repair",
    "report",
    "schedule",
    "search",
    "shed",
    "sparsify",
    "verify",
]
