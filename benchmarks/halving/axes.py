"""Experiment 3: heads, head channels or state at equal parameters removed, before and after healing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.halving.bench import Bench
from benchmarks.halving.children import make
from benchmarks.halving.heal import heal
from benchmarks.halving.healing import recipe
from benchmarks.halving.shapes import inner
from benchmarks.halving.units import Unit

from secateur.model import open_model

FILE = "halving-axes.jsonl"
AXES = ("heads", "channels", "state")
TOKENS, EVERY, RATE = 102_400, 51_200, 1e-3


def units(bench: Bench, seeds: Sequence[int], shapes: Sequence[str]) -> Iterator[Unit]:
    for seed in seeds:
        for axis in AXES:
            settings = {"axis": axis, "seed": seed, "rate": RATE, "tokens": TOKENS}
            settings |= {"parent": bench.digest, "judge": bench.judge, "rows": bench.rows, "samples": bench.samples}
            yield Unit(settings, partial(_run, bench, axis, seed))


def _run(bench: Bench, axis: str, seed: int) -> dict[str, Any]:
    """Cut without repair, with our repair, and healed."""
    folder = bench.work / "axes" / f"{axis}-{seed}"
    cut, repaired = folder / "cut", folder / "repaired"
    make(bench, axis, "ours, no repair", seed, cut)
    make(bench, axis, "ours", seed, repaired)
    removed = inner(bench.model) - inner(open_model(repaired))
    facts = {"removed_parameters": removed, "cut": bench.score_folder(cut)["loss"]}
    return facts | heal(bench, repaired, bench.parent, recipe(seed, 0.0, RATE, TOKENS), EVERY, folder / "work")
