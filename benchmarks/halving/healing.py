"""Experiment 2: the 45% child healed by its parent, on the text alone, and the same shape from random weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.common.units import Unit
from benchmarks.halving.bench import Bench
from benchmarks.halving.children import make
from benchmarks.halving.heal import heal
from benchmarks.parents.processes import computes_in_bf16
from transformers import AutoConfig, AutoModelForCausalLM

from secateur.model import open_model
from secateur.train.settings import Settings

FILE = "halving-healing.jsonl"
SHAPE = "45"
#: run -> (starts from, share of cross-entropy, peak rate). Rates for pruned starts were compared on training text
#: after 102,400 tokens (1e-3, 3e-3): KD 4.033, 4.029; CE 4.114, 4.238. Scratch has the parent's.
RUNS: dict[str, tuple[str, float, float]] = {
    "pruned + KD": ("pruned", 0.0, 2e-3),
    "pruned + CE": ("pruned", 1.0, 1e-3),
    "scratch + CE": ("scratch", 1.0, 3e-3),
    "scratch + KD": ("scratch", 0.0, 3e-3),
    "pruned + KD, long": ("pruned", 0.0, 2e-3),
    "pruned + KD, longer": ("pruned", 0.0, 2e-3),
}
TOKENS, EVERY = 307_200, 102_400
LONGER = {"pruned + KD, long": 921_600, "pruned + KD, longer": 2_457_600}


def units(bench: Bench, seeds: Sequence[int], shapes: Sequence[str]) -> Iterator[Unit]:
    for name in RUNS:
        for seed in seeds:
            settings = {"run": name, "shape": SHAPE, "seed": seed, "rate": RUNS[name][2]}
            settings["tokens"] = LONGER.get(name, TOKENS)
            settings |= {"parent": bench.digest, "judge": bench.judge, "rows": bench.rows, "samples": bench.samples}
            yield Unit(settings, partial(_run, bench, name, seed))


def recipe(seed: int, ce: float, rate: float, tokens: int) -> Settings:
    """4 windows of 512 tokens a step; bf16 over float32 weights where the processor has it."""
    bf16 = computes_in_bf16(torch.device("cpu"), "auto")
    return Settings(tokens=tokens, batch=4, micro_batch=4, lr=rate, ce=ce, seed=seed, bf16=bf16, save_every=50)


def _run(bench: Bench, name: str, seed: int) -> dict[str, Any]:
    start, ce, rate = RUNS[name]
    student = pruned(bench, SHAPE, seed) if start == "pruned" else random_twin(bench, SHAPE, seed)
    teacher = None if ce == 1 else bench.parent
    work = bench.work / "healing" / f"{name.replace(' + ', '-')}-{seed}"
    return heal(bench, student, teacher, recipe(seed, ce, rate, LONGER.get(name, TOKENS)), EVERY, work)


def pruned(bench: Bench, shape: str, seed: int) -> Path:
    """The child of our method, made once."""
    out = bench.work / "children" / f"{shape}-{seed}-{bench.digest}-{bench.samples}"
    if not (out / "config.json").exists():
        part = out.with_name(f"{out.name}.part")
        make(bench, shape, "ours", seed, part)
        part.rename(out)
    return out


def random_twin(bench: Bench, shape: str, seed: int) -> Path:
    """A checkpoint of the same shape with fresh random weights."""
    out = bench.work / "children" / f"{shape}-{seed}-random"
    if not (out / "config.json").exists():
        source, part = pruned(bench, shape, seed), out.with_name(f"{out.name}.part")
        shutil.copytree(source, part, ignore=shutil.ignore_patterns("*.safetensors", "secateur.json"))
        torch.manual_seed(1000 + seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source), dtype=torch.float32)
        model.save_pretrained(part)
        open_model(part)
        part.rename(out)
    return out
