"""Every method at every share of operations, on what follows a prompt and on the survivors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.common.units import Unit
from benchmarks.tokens.bench import Bench

from secateur.tokens.score import survivors
from secateur.tokens.settings import TokenReduction

FILE = "tokens-quality.jsonl"
SHARES = (0.8, 0.7, 0.9)
#: Variants that are compared with the methods as they are: only what differs is named.
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"method": name} for name in ("utrc", "evit", "pumer", "importance", "random", "stride")},
    "utrc, causal": {"method": "utrc", "causal": True},
}


def units(bench: Bench, seeds: Iterable[int], prompts: Iterable[int]) -> Iterable[Unit]:
    return [
        unit(bench, variant, fields, share, prompt, seed)
        for prompt in prompts
        for share in SHARES
        for seed in seeds
        for variant, fields in VARIANTS.items()
    ]


def unit(bench: Bench, variant: str, fields: dict[str, Any], share: float, prompt: int, seed: int) -> Unit:
    settings = {
        "parent": bench.name, "weights": bench.digest, "variant": variant, "flops": share, "prompt": prompt,
        "seed": seed,
    }  # fmt: skip
    return Unit(settings, lambda: measured(bench, TokenReduction(flops=share, seed=seed, **fields), prompt, seed))


def measured(bench: Bench, asked: TokenReduction, prompt: int, seed: int) -> dict[str, Any]:
    judge = bench.judge(prompt, seed)
    after = judge.score(asked)
    known = bench.everywhere(prompt, seed)
    kept = survivors(bench.network, asked, [b[:, :prompt] for b in judge.batches], known)
    return {
        "loss": after.loss, "full": after.full, "kl": after.kl, "tokens": after.tokens,
        "survivors": kept.loss, "survivors_full": kept.full, "survivors_kl": kept.kl, "survivor_tokens": kept.tokens,
    }  # fmt: skip
