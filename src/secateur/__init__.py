"""Secateur: make language models smaller and keep them good.

>>> import secateur as sc
>>> parent = sc.open("checkpoint/")
>>> plan = sc.plan(parent, params="60%")
>>> child = sc.prune(parent, plan, out="child/")

Importing this package is cheap: PyTorch is loaded by the first call that needs it.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from secateur.api import open, plan, prune
from secateur.errors import SecateurError

try:
    __version__ = version("secateur")
except PackageNotFoundError:  # running from a source tree that is not installed
    __version__ = "0"


__all__ = ["SecateurError", "__version__", "open", "plan", "prune"]
