"""Must hold 2, Mamba-Shedder's finding: does a model rather lose whole Mamba blocks, or their scans alone?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from benchmarks.common.units import Unit
from benchmarks.depth.ground import Parent

from secateur.pruning.removed import parse_unit
from secateur.search.removal.found import greedy
from secateur.search.removal.places import NOTHING, counted, places

FILE = "depth-grain.jsonl"
GRAINS = ("mamba", "scan")
MOST = 0.6
"""Share of the Mamba blocks that go at most."""


def units(parents: Sequence[Parent], seeds: Sequence[int]) -> Iterable[Unit]:
    for parent in parents:
        if not any("mamba" in kinds for kinds in parent.bench.model.anatomy.kinds):
            continue
        for seed in seeds:
            for grain in GRAINS:
                settings = {"parent": parent.name, "seed": seed, "grain": grain}
                yield Unit(settings, partial(run, parent, seed, grain))


def run(parent: Parent, seed: int, grain: str) -> dict[str, Any]:
    """The path of the greedy search by loss, each step judged on held-out text."""
    anatomy = parent.bench.model.anatomy
    where = places(anatomy, grain)
    steps = len(where) if grain == "scan" else max(1, round(MOST * len(where)))
    found = greedy(parent.calibration(seed), counted(parent.bench.model, where, steps), "nll")
    removal, path = NOTHING, []
    for step in found.steps:
        removal = removal | {parse_unit(step.gone, anatomy)}
        path.append({"gone": step.gone, "nll": step.cost, **parent.judged(removal)})
    return {"path": path, "blocks": len(where)}
