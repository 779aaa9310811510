"""The rule of NVIDIA's Model-Optimizer (modelopt/torch/prune/plugins/mcore_minitron.py at a2fbac7), as a baseline.

Shapes of the grid that keep at least 60% of every width and 80% of the layers, the ten with most parameters within the
budget, the best of them by a score straight after the cut. In NVIDIA's own tutorial those ten, all of 7.00 B
parameters, range from 0.20 to 0.68 MMLU: the number of parameters says nothing about quality.

Differences: the score is the KL from the parent on calibration text instead of MMLU, and where the two bounds leave
nothing within the budget, they are dropped, which a note says.
"""

from __future__ import annotations

import math

from secateur.errors import BudgetError
from secateur.search.arena import Arena
from secateur.search.candidates import Space
from secateur.search.enumerate import grid
from secateur.search.strategies.base import Outcome

COUNT = 10
#: Largest shares of a width and of the layers that may go.
WIDTH, DEPTH = 0.4, 0.2


def search(arena: Arena) -> Outcome:
    note = f"within NVIDIA's bounds of {WIDTH:.0%} of a width and {DEPTH:.0%} of the layers"
    try:
        ten = grid(bounded(arena.space), COUNT).candidates
    except BudgetError:
        ten, note = grid(arena.space, COUNT).candidates, note.replace("within", "beyond")
    stage = arena.stage("zero-shot", max(arena.effort.tokens))
    return Outcome(arena.rank(ten, stage)[0], stage, notes=(f"the {len(ten)} largest shapes, {note}",))


def bounded(space: Space) -> Space:
    """The part of ``space`` that NVIDIA's search looks at."""
    axes = {}
    for dial in space.dials:
        outer = math.prod(space.anatomy.sizes[s] for s in dial.axis.symbols[:-1])
        kept = dial.values[dial.values >= (1 - WIDTH) * space.anatomy.sizes[dial.axis.symbol]]
        axes[dial.axis.name] = [int(v) * outer for v in kept]
    least = math.ceil((1 - DEPTH) * space.anatomy.n_layers)
    return Space(space.model, space.budget, axes=axes, order=space.order, least_layers=max(least, space.least_layers))
