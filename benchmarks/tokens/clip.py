"""What clipping the scan's output buys: UTRC and importance alone, by how channels become one number."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.halving.units import Unit
from benchmarks.tokens.bench import Bench
from benchmarks.tokens.quality import unit

from secateur.tokens.names import MEASURES

FILE = "tokens-clip.jsonl"
SHARE = 0.8


def units(bench: Bench, seeds: Iterable[int], prompts: Iterable[int]) -> Iterable[Unit]:
    return [
        unit(bench, f"{method}, {measure}", {"method": method, "measure": measure}, SHARE, prompt, seed)
        for prompt in prompts
        for seed in seeds
        for method in ("utrc", "importance")
        for measure in MEASURES
    ]
