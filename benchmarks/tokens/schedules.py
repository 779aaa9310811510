"""The paper's schedule against one calibrated on training text, judged on held-out text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.common.units import Unit
from benchmarks.tokens.bench import WINDOWS, Bench

from secateur.tokens.calibrated import calibrate
from secateur.tokens.settings import TokenReduction

FILE = "tokens-schedules.jsonl"
TRIALS, TIMES = 16, 16
"""Trials of a search; windows, as a multiple of what methods are compared on: schedules differ by less."""
METHODS = ("utrc",)


def units(bench: Bench, seeds: Iterable[int], prompts: Iterable[int]) -> Iterable[Unit]:
    return [
        Unit(
            {"parent": bench.name, "weights": bench.digest, "method": method, "flops": share, "prompt": prompt,
             "seed": seed, "trials": TRIALS, "windows": TIMES * WINDOWS[prompt]},
            lambda method=method, share=share, prompt=prompt, seed=seed: measured(bench, method, share, prompt, seed),
        )
        for prompt in prompts
        for method in METHODS
        for share in (0.8,)
        for seed in seeds
    ]  # fmt: skip


def measured(bench: Bench, method: Any, share: float, prompt: int, seed: int) -> dict[str, Any]:
    """Searched on training windows of the seed, compared on held-out windows of the seed."""
    asked = TokenReduction(method=method, flops=share, seed=seed)
    found = calibrate(bench.judge(prompt, seed, True, TIMES), asked, trials=TRIALS, seed=seed)
    judge = bench.judge(prompt, seed, False, TIMES)
    ours, paper = judge.score(found.asked), judge.score(asked)
    return {
        "kl": ours.kl, "loss": ours.loss, "paper_kl": paper.kl, "paper_loss": paper.loss, "full": ours.full,
        "calibration_kl": found.kl, "calibration_paper_kl": found.paper,
        "locations": list(found.asked.locations), "strengths": list(found.asked.strengths),
    }  # fmt: skip
