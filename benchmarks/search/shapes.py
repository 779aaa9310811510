"""Experiment 1: at equal parameters and after equal healing, a searched shape against NVIDIA's rule and even scaling.

All strategies see the same budget, axes, text and statistics. Each winner is cut, distilled on the same fresh tokens,
and judged on held-out text: KL from the parent and next-token loss. Seeds draw the text and every random step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.common.units import Unit
from benchmarks.search.ground import LENGTH, Ground

from secateur.search.journal import Journal
from secateur.search.outcome import Effort
from secateur.search.planned import costs_of
from secateur.search.prepared import prepared
from secateur.search.settings import Settings
from secateur.search.strategies import STRATEGIES

FILE = "search-shapes.jsonl"
PARAMS = "60%"
METHODS = ("uniform", "ten-largest", "minitron", "evolutionary")
TOKENS, EVERY = 131_072, 8_192
EFFORT = Effort(initial=16, generations=6, offspring=12, tokens=(1024, 4096), finalists=4, heal=8192)
SAMPLES, LESSONS = 32, 32


def units(ground: Ground, seeds: Sequence[int]) -> Iterator[Unit]:
    for seed in seeds:
        for method in METHODS:
            settings = {"parent": ground.name, "digest": ground.digest, "method": method, "seed": seed}
            settings |= {"params": PARAMS, "tokens": TOKENS, "effort": _said(EFFORT)}
            yield Unit(settings, partial(_run, ground, method, seed))


def _said(effort: Effort) -> str:
    tokens = "-".join(map(str, effort.tokens))
    return f"{effort.initial}+{effort.generations}x{effort.offspring} {tokens} {effort.finalists}x{effort.heal}"


def _run(ground: Ground, method: str, seed: int) -> dict[str, Any]:
    settings = Settings(
        wanted={"params": PARAMS}, strategy=method, effort=EFFORT, seed=seed, axes=tuple(ground.axes),
        samples=SAMPLES, lessons=LESSONS, length=LENGTH,
    )  # fmt: skip
    # a journal of its own, so that the time of each strategy is what it takes alone
    folder = ground.work / f"{ground.name}-{method}-{seed}"
    arena = prepared(ground.model, ground.text, settings)
    arena.journal = Journal(folder, {"digest": ground.digest, "seed": seed, "effort": _said(EFFORT)})
    outcome = STRATEGIES[method](arena)
    arena.journal.close()
    judge = ground.judge(seed, TOKENS // LENGTH, arena.bench)
    found = ground.healed(outcome.winner, judge, TOKENS, EVERY)
    return {
        "axes": ground.axes,
        "shape": str(outcome.winner),
        "parameters": costs_of(outcome.winner, arena.space)["params"],
        "search_seconds": arena.spent,
        "measured": len(arena.scores),
        "agreements": [a.to_json() for a in outcome.agreements],
        "notes": list(outcome.notes),
        **found,
    }
