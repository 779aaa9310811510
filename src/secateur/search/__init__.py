"""Which shape? Budgets, exact costs, measured latencies, and the candidates between which strategies choose.

resources/     what a shape takes, one resource a file        budget      limits as people write them
dials          axes and the sizes they may take               candidates  steps, random shapes, mutations
enumerate      the grid of largest shapes                     latency     the table; probe measures it
"""

from __future__ import annotations

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
