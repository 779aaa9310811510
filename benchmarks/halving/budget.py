"""Experiment 2, headline: the 45% shape trained from random weights on the parent's whole token budget, on the parent's
own schedule."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common.units import Unit
from benchmarks.halving.bench import Bench
from benchmarks.halving.healing import SHAPE
from benchmarks.halving.shapes import sizes
from benchmarks.parents import train

FILE = "halving-budget.jsonl"
TOKENS = 12_000_000
_FIELDS = {"ssm_heads": "mamba_num_heads", "ffn": "intermediate_size"}


def units(bench: Bench, seeds: Sequence[int], shapes: Sequence[str]) -> Iterator[Unit]:
    for seed in seeds:
        settings = {"run": "scratch + CE", "shape": SHAPE, "seed": seed, "tokens": TOKENS}
        yield Unit({**settings, "parent": bench.digest, "rows": bench.rows}, partial(_run, bench, seed))


def _run(bench: Bench, seed: int) -> dict[str, Any]:
    """4,096 tokens a step in one process, as the parent had in two."""
    work = bench.work / "budget" / str(seed)
    _share_tokens(bench, work)
    config = {_FIELDS[axis]: size for axis, size in sizes(bench.model, SHAPE).items()}
    options = f"hybrid --data {bench.data} --work {work} --batch 8 --tokens {TOKENS} --decay-share 0.25 --seed {seed} "
    options += f"--eval-rows {bench.rows} --eval-every 250 --save-every 60"
    train.main([*options.split(), "--config", json.dumps(config)])
    log = [json.loads(line) for line in (work / "hybrid" / "log.jsonl").read_text().splitlines()]
    curve = {line["tokens"]: line["bits_per_byte"] for line in log if line["step"] % 250 == 0}
    score = bench.score_folder(work / "hybrid" / "final")
    nats = score["loss"] / score["bits_per_byte"]  # of this text: ln 2 x bytes per token
    assert math.isfinite(nats)
    return {**score, "curve": sorted((tokens, bits * nats) for tokens, bits in curve.items())}


def _share_tokens(bench: Bench, work: Path) -> None:
    """The parent's tokenizer, and the tokens that were cut with it."""
    work.mkdir(parents=True, exist_ok=True)
    len(bench.train), len(bench.judged)
    if not (work / "tokenizer").exists():
        (work / "tokenizer").mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(bench.parent / name, work / "tokenizer" / name)
    for file in bench.work.glob("tokens-*.npy"):
        if not (work / file.name).exists():
            (work / file.name).symlink_to(file.resolve())
