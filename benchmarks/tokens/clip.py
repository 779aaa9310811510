"""What clipping the scan's output buys: UTRC and importance alone, by how channels become one number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.common.units import Unit
from benchmarks.tokens.bench import Bench

from secateur.tokens.settings import TokenReduction

FILE = "tokens-clip.jsonl"
SHARE = 0.8
MEASURES = ("clip", "mean")


def units(bench: Bench, seeds: Iterable[int], prompts: Iterable[int]) -> Iterable[Unit]:
    return [
        unit(bench, method, measure, prompt, seed)
        for prompt in prompts
        for seed in seeds
        for method in ("importance", "utrc")
        for measure in MEASURES
    ]


def unit(bench: Bench, method: Any, measure: Any, prompt: int, seed: int) -> Unit:
    asked = TokenReduction(flops=SHARE, method=method, measure=measure)
    settings = {
        "parent": bench.name, "weights": bench.digest, "variant": f"{method}, {measure}", "flops": SHARE,
        "prompt": prompt, "seed": seed,
    }  # fmt: skip

    def run() -> dict[str, Any]:
        found = bench.judge(prompt, seed).score(asked)
        return {"loss": found.loss, "full": found.full, "kl": found.kl, "tokens": found.tokens}

    return Unit(settings, run)
