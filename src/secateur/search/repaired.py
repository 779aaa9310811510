"""A shape after the closed-form repair: the same cut and the same least squares as `prune` and `repair` make.

They work on checkpoints, so each shape becomes one in a temporary folder, once; healing it later starts from there. The
repair is fitted on the lessons, never on the windows that are measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from secateur.errors import UsageError
from secateur.evaluation.equality import load_strict
from secateur.kernels import fast
from secateur.pruning.repair.run import RepairSettings
from secateur.pruning.repaired import prune_repaired
from secateur.pruning.run import Settings
from secateur.search.planned import planned
from secateur.search.stages import Shape

if TYPE_CHECKING:
    from secateur.search.bench import Bench


@contextmanager
def repaired(shape: Shape, bench: Bench) -> Iterator[Any]:
    """The repaired model, a copy of its own. Raises UsageError when there is no text to fit on."""
    if shape not in bench.repaired:
        if bench.lessons is None:
            raise UsageError("a repair is fitted on text besides that which is measured, and the search was given none")
        out = bench.scratch / str(len(bench.repaired))
        settings = Settings(score=bench.criterion, seed=bench.seed)
        repairs = RepairSettings(batch=bench.batch)
        plan = planned(shape, bench.model, ())
        with prune_repaired(bench.model, plan, out, settings, bench.lessons, repairs, stats=bench.stats):
            bench.repaired[shape] = out
    module = load_strict(bench.repaired[shape])
    with fast(module):
        yield module
