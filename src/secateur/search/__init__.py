"""Which shape? Budgets, exact costs, measured latencies, and the candidates between which strategies choose.

resources/     what a shape takes, one resource a file        budget      limits as people write them
dials          axes and the sizes they may take               candidates  steps, random shapes, mutations
enumerate      the grid of largest shapes                     latency     the table; probe measures it
stages         how well a candidate is measured               bench       model, text and candidates in memory
arena          where strategies ask for scores                journal     scores on disk
ladder, evolve what strategies share                          run         all of it, from text to plan
strategies/    how candidates are found, one a file           removal/    layers and sub-blocks
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from secateur.search.budget import Budget, make_budget
from secateur.search.candidates import Candidate, Space
from secateur.search.enumerate import Grid, grid
from secateur.search.latency import Table
from secateur.search.probe import Turns, measure
from secateur.search.resources import RESOURCES, Resource, Workload
from secateur.search.setting import setting_of

__all__ = [
    "RESOURCES",
    "Budget",
    "Candidate",
    "Grid",
    "Resource",
    "Space",
    "Table",
    "Turns",
    "Workload",
    "grid",
    "make_budget",
    "measure",
    "setting_of",
]


class _Verb(ModuleType):
    """``sc.search(...)`` stays the function it is in :mod:`secateur.api` when this package of the same name has been
    imported, which Python would otherwise put in its place."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        from secateur.api import search

        return search(*args, **options)


sys.modules[__name__].__class__ = _Verb
