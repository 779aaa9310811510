"""Experiment 3: heads, head channels or state at equal parameters removed, before and after healing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.common.units import Unit
from benchmarks.halving.bench import Bench
from benchmarks.halving.children import make
from benchmarks.halving.heal import heal
from benchmarks.halving.healing import recipe
from benchmarks.halving.shapes import inner

from secateur.model import open_model

FILE = "halving-axes.jsonl"
AXES = ("heads", "channels", "state")
TOKENS, EVERY, RATE = 51_200, 51_200, 1e-3


def units(bench: Bench, seeds: Sequence[int], shapes: Sequence[str]) -> Iterator[Unit]:
    for seed in seeds:
        for axis in AXES:
            settings = {"axis": axis, "seed": seed, "rate": RATE, "tokens": TOKENS}
            settings |= {"parent": bench.digest, "judge": bench.judge, "rows": bench.rows, "samples": bench.samples}
            yield Unit(settings, partial(_run, bench, axis, seed))


def _run(bench: Bench, axis: str, seed: int) -> dict[str, Any]:
    """Cut by our criterion without repair, then healed by the parent."""
    folder = bench.work / "axes" / f"{axis}-{seed}"
    cut = folder / "cut"
    if not (cut / "config.json").exists():
        make(bench, axis, "ours, no repair", seed, cut)
    removed = inner(bench.model) - inner(open_model(cut))
    found = heal(bench, cut, bench.parent, recipe(seed, 0.0, RATE, TOKENS), EVERY, folder / "work")
    return {"removed_parameters": removed, **found}
