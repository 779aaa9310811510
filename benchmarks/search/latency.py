"""Experiment 2: a latency is asked for; the checkpoint that comes out is timed in turns with its parent.

The table is measured first, a search within ``latency=0.6x`` chooses the shape, `prune` writes the checkpoint, and both
checkpoints, loaded by plain transformers, read a prompt and add tokens in turns. The median of the turns' ratios is
compared with the ratio that was asked for: a machine that stumbles hits both of a turn.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.common.units import Unit
from benchmarks.search.ground import LENGTH, Ground

from secateur.evaluation.decode import prefill, step
from secateur.evaluation.load import Place, loaded
from secateur.pruning.run import Settings as Cutting
from secateur.pruning.run import prune
from secateur.search.outcome import Effort
from secateur.search.prepared import prepared
from secateur.search.resources import Workload
from secateur.search.settings import Files, Settings
from secateur.search.strategies import STRATEGIES

FILE = "search-latency.jsonl"
TARGETS = ("0.75x", "0.6x")
CONTEXT, NEW, ROUNDS = 256, 64, 7
EFFORT = Effort(initial=12, generations=4, offspring=8, tokens=(1024,), finalists=1, heal=0)


def units(ground: Ground, seeds: Sequence[int]) -> Iterator[Unit]:
    for seed in seeds:
        for target in TARGETS:
            settings = {"parent": ground.name, "digest": ground.digest, "latency": target, "seed": seed}
            settings |= {"context": CONTEXT, "new": NEW}
            yield Unit(settings, partial(_run, ground, target, seed))


def _run(ground: Ground, target: str, seed: int) -> dict[str, Any]:
    settings = Settings(
        wanted={"latency": target}, effort=EFFORT, seed=seed, axes=tuple(ground.axes), samples=8, lessons=0,
        length=LENGTH, workload=Workload(CONTEXT), place=Place("cpu", "float32"),
    )  # fmt: skip
    # a table of its own for every seed: how well it repeats is part of the question
    table = ground.work / f"{ground.name}-{CONTEXT}-{seed}.latency.json"
    arena = prepared(ground.model, ground.text, settings, Files(table=table))
    outcome = STRATEGIES[settings.strategy](arena)
    out = ground.work / f"{ground.name}-{target}-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    cutting = Cutting(score=arena.bench.criterion, seed=seed)
    with prune(ground.model, arena.plan(outcome.winner), out, cutting, stats=arena.bench.stats):
        pass
    parent, child = in_turns(ground.parent, out, ground.model.anatomy.sizes["v"])
    planned = float(arena.space.costs(outcome.winner)["latency"]) / arena.space.budget.limits[0].whole
    return {
        "axes": ground.axes,
        "shape": str(outcome.winner),
        "asked": float(target.removesuffix("x")),
        "planned": planned,
        "parent_seconds": parent,
        "child_seconds": child,
        "table_parent_seconds": arena.space.budget.limits[0].whole,
    }


def ratio(result: Mapping[str, Any]) -> float:
    """Of the child's time to the parent's, over the turns."""
    turns = zip(result["child_seconds"], result["parent_seconds"], strict=True)
    return statistics.median(child / parent for child, parent in turns)


def in_turns(parent: Path, child: Path, vocabulary: int) -> tuple[list[float], list[float]]:
    """Seconds for a prompt and NEW tokens, both models in turns, the first turn of each left out."""
    ids = torch.randint(vocabulary, (1, CONTEXT), generator=torch.Generator().manual_seed(0))
    times: tuple[list[float], list[float]] = ([], [])
    place = Place("cpu", "float32")
    with loaded(parent, place) as first, loaded(child, place) as second:
        for turn in range(ROUNDS + 1):
            for seconds, model in zip(times, (first, second), strict=True):
                began = time.perf_counter()
                token, out = prefill(model, ids)
                for _ in range(NEW):
                    token, out = step(model, token, out)
                if turn:
                    seconds.append(time.perf_counter() - began)
    return times
