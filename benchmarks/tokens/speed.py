"""Prefill with fewer tokens: time and peak memory, in alternating pairs, against what the operations promise.

python -m benchmarks.tokens.speed --models mamba2 llama --lengths 2048 --pairs 3

Random models of the 125 M class; a forward pass does not care what its weights are. A pair is one full and one reduced
prefill in the same process, in an order that alternates. Processor seconds of the one thread are what a busy machine
leaves comparable; wall seconds stand beside them. Memory, in a process of its own per run: resident bytes at the peak
above those before the pass, of a prefill (one row of logits) and of scoring (logits of every token left, as lm-eval
asks for them, and as the paper measures).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.common.tables import RESULTS
from benchmarks.common.units import Unit, run_all
from transformers import AutoModelForCausalLM, LlamaConfig, Mamba2Config, PreTrainedConfig

from secateur.kernels import fast
from secateur.tokens.runtime import reduce_tokens
from secateur.tokens.settings import TokenReduction

FILE = RESULTS / "tokens-speed.jsonl"
_STATUS = Path("/proc/self/status")

MODELS: dict[str, PreTrainedConfig] = {
    "mamba2": Mamba2Config(
        hidden_size=768, num_hidden_layers=24, num_heads=24, head_dim=64, state_size=128, n_groups=1, expand=2,
        vocab_size=50280, tie_word_embeddings=True,
    ),
    "llama": LlamaConfig(
        hidden_size=768, num_hidden_layers=12, intermediate_size=2048, num_attention_heads=12, vocab_size=50280,
        max_position_embeddings=16384, tie_word_embeddings=True,
    ),
}  # fmt: skip


def made(name: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(MODELS[name], dtype=torch.float32).eval()


def ids(length: int) -> torch.Tensor:
    return torch.randint(50280, (1, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def timed(network: Any, tokens: torch.Tensor) -> tuple[float, float]:
    """(processor, wall) seconds of one prefill with its cache."""
    cpu, wall = time.process_time(), time.perf_counter()
    network(tokens, use_cache=True, logits_to_keep=1)
    return time.process_time() - cpu, time.perf_counter() - wall


def pair(network: Any, asked: TokenReduction, length: int, number: int) -> dict[str, Any]:
    """One full and one reduced prefill; odd pairs begin with the reduced one."""
    tokens, found = ids(length), {}
    for reduced in (False, True) if number % 2 == 0 else (True, False):
        if reduced:
            with reduce_tokens(network, asked) as reducing:
                found["reduced"] = timed(network, tokens)
                share, left = reducing.share(length), reducing.schedule(length).left(length)
        else:
            found["full"] = timed(network, tokens)
    speedup = found["full"][0] / found["reduced"][0]
    return {
        "full_cpu_s": found["full"][0], "reduced_cpu_s": found["reduced"][0], "full_wall_s": found["full"][1],
        "reduced_wall_s": found["reduced"][1], "share": share, "tokens_left": left, "speedup": speedup,
        "wall_speedup": found["full"][1] / found["reduced"][1], "of_promised": speedup * share,
    }  # fmt: skip


def peak(name: str, asked: TokenReduction | None, length: int, scoring: bool) -> dict[str, Any]:
    """Peak of one pass in a process of its own."""
    job = json.dumps([name, None if asked is None else asked.to_json(), length, scoring])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tokens.speed", "--peak", job], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@torch.no_grad()
def measure_peak(job: str) -> None:
    """Print the resident bytes a pass adds at its peak."""
    name, document, length, scoring = json.loads(job)
    network = made(name)
    tokens = ids(length)
    with fast(network):
        network(tokens[:, :64], logits_to_keep=1)  # pages of weights and libraries come in
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        keep = 0 if scoring else 1
        if document is None:
            network(tokens, use_cache=not scoring, logits_to_keep=keep)
        else:
            with reduce_tokens(network, TokenReduction.from_json(document)):
                network(tokens, use_cache=not scoring, logits_to_keep=keep)
    print(json.dumps({"peak_bytes": _status("VmHWM") - before}))


def _status(field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


def main() -> None:
    p = argparse.ArgumentParser(prog="python -m benchmarks.tokens.speed", description=__doc__)
    p.add_argument("--models", nargs="+", choices=sorted(MODELS), default=["mamba2"])
    p.add_argument("--lengths", type=int, nargs="+", default=[2048])
    p.add_argument("--methods", nargs="+", default=["utrc"])
    p.add_argument("--flops", type=float, nargs="+", default=[0.8])
    p.add_argument("--pairs", type=int, default=3)
    p.add_argument("--memory", action="store_true", help="peak memory instead of time")
    p.add_argument("--work", type=Path, default=Path("benchmarks-work"), help="locks of units under way")
    p.add_argument("--peak", help=argparse.SUPPRESS)
    s = p.parse_args()
    torch.set_num_threads(1)
    if s.peak:
        measure_peak(s.peak)
        return
    for name in s.models:
        network = None if s.memory else made(name)
        units = [
            unit(network, name, method, share, length, number, s.memory)
            for length in s.lengths
            for share in s.flops
            for method in s.methods
            for number in range(2 if s.memory else s.pairs)
        ]
        if network is None:
            run_all(units, FILE, s.work / "locks", print)
            continue
        with fast(network):
            timed(network, ids(256))  # warm
            run_all(units, FILE, s.work / "locks", print)


def unit(network: Any, name: str, method: Any, share: float, length: int, number: int, memory: bool) -> Unit:
    asked = TokenReduction(flops=share, method=method)
    settings = {"model": name, "method": method, "flops": share, "length": length}
    if not memory:
        return Unit({"what": "time", **settings, "pair": number}, lambda: pair(network, asked, length, number))
    scoring = bool(number)
    what = "peak scoring" if scoring else "peak prefill"

    def both() -> dict[str, Any]:
        full, reduced = (peak(name, a, length, scoring)["peak_bytes"] for a in (None, asked))
        return {"full_bytes": full, "reduced_bytes": reduced, "ratio": reduced / full}

    return Unit({"what": what, **settings}, both)


if __name__ == "__main__":
    main()
