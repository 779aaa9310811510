"""Minitron (arXiv 2407.14679; for hybrids arXiv 2504.11409): a grid of shapes, ranked by short distillation.

    grid       every size of every axis crossed, within the budget; the largest ``GRID`` shapes
    cheap      importance given up, from statistics, keeps a few dozen (where there are statistics)
    zero-shot  loss of the cut model
    healed     the finalists after a short distillation; the lowest wins

The papers take 22 candidates into distillation by hand and break ties by throughput. NVIDIA's code (Model-Optimizer)
scores the ten largest and leaves the distillation to the user: that rule is :mod:`.ten_largest`.
"""

from __future__ import annotations

from secateur.search.arena import Arena
from secateur.search.enumerate import grid
from secateur.search.ladder import CHEAP, Rung, climb, finals, ladder
from secateur.search.strategies.base import Outcome

GRID = 256
SHORTLIST = 32


def search(arena: Arena) -> Outcome:
    found = grid(arena.space, GRID)
    first = [Rung(CHEAP, SHORTLIST)] if arena.bench.stats is not None else []
    climbed = climb(arena, found.candidates, [*first, *ladder(arena)])
    outcome = finals(arena, climbed.best, fitting=found.fitting, grid=found.seen)
    return outcome.after(climbed.agreements, (*climbed.notes, *filter(None, [found.note])))
