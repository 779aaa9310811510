"""Experiment 1: what every method loses at once, before any training."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.common.units import Unit
from benchmarks.halving.bench import Bench
from benchmarks.halving.children import METHODS, make

FILE = "halving-oneshot.jsonl"
SEEDLESS = ("magnitude",)


def units(bench: Bench, seeds: Sequence[int], shapes: Sequence[str]) -> Iterator[Unit]:
    common = {"parent": bench.digest, "judge": bench.judge, "rows": bench.rows, "samples": bench.samples}
    yield Unit({"method": "parent", **common}, partial(bench.score_folder, bench.parent))
    for seed in seeds:
        for shape in shapes:
            for method in METHODS:
                if method in SEEDLESS and seed != seeds[0]:
                    continue
                settings = {"method": method, "shape": shape, "seed": seed, **common}
                yield Unit(settings, partial(_run, bench, shape, method, seed))


def _run(bench: Bench, shape: str, method: str, seed: int) -> dict[str, Any]:
    out = bench.work / "oneshot" / f"{shape}-{list(METHODS).index(method)}-{seed}"
    _, facts = make(bench, shape, method, seed, out)
    score = bench.score_folder(out)
    shutil.rmtree(out)
    return {**score, **facts}
