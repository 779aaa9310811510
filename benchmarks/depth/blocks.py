"""Must hold 1: evolutionary <= greedy <= one-shot cosine, and the search finds the best of all choices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from benchmarks.common.units import Unit
from benchmarks.depth.ground import SHARES, Parent, count

from secateur.search.removal.found import Found, greedy
from secateur.search.removal.masked import Masked
from secateur.search.removal.places import Ground, counted, places
from secateur.search.strategies import bonsai, evopress, exhaustive, logit_mse, shortgpt, streamline

FILE = "depth-blocks.jsonl"
MOST = 12
"""Blocks up to which every choice is measured."""
#: One fresh window of text first, then all of the calibration text with the parent beside.
EFFORT = evopress.Effort(batches=(1, 4), offspring=32, initial=16)

METHODS: dict[str, Callable[[Masked, Ground, int, int], Found]] = {
    "exhaustive": lambda work, ground, k, seed: exhaustive.find(work, ground),
    "one-shot cosine": lambda work, ground, k, seed: shortgpt.find(work, ground),
    "window cosine": lambda work, ground, k, seed: streamline.find(work, k),
    "greedy, loss": lambda work, ground, k, seed: greedy(work, ground, "nll"),
    "greedy, logit MSE": lambda work, ground, k, seed: logit_mse.find(work, ground),
    "greedy, KL": lambda work, ground, k, seed: greedy(work, ground, "kl"),
    "Bonsai": lambda work, ground, k, seed: bonsai.find(work, ground, seed=seed),
    "EvoPress": lambda work, ground, k, seed: evopress.find(work, ground, effort=EFFORT, seed=seed),
}


def units(parents: Sequence[Parent], seeds: Sequence[int]) -> Iterable[Unit]:
    for parent in parents:
        n = len(places(parent.bench.model.anatomy, parent.pool))
        for seed in seeds:
            for share in SHARES:
                for method in METHODS:
                    if (method == "exhaustive" and n > MOST) or (method == "window cosine" and parent.pool != "layer"):
                        continue
                    settings = {"parent": parent.name, "seed": seed, "share": share, "method": method}
                    yield Unit(settings, partial(run, parent, seed, share, method))


def run(parent: Parent, seed: int, share: float, method: str) -> dict[str, Any]:
    work, where = parent.calibration(seed), places(parent.bench.model.anatomy, parent.pool)
    k = count(share, len(where))
    ground = counted(parent.bench.model, where, k)
    found = METHODS[method](work, ground, k, seed)
    kl = float(work.costs([found.removal])["kl"][0])
    return {
        "kl": kl,
        **parent.judged(found.removal),
        "removed": [str(u) for u in sorted(found.removal)],
        "blocks": len(where),
        "trials": found.trials,
    }
