"""Fast paths against transformers' own torch code, in alternating pairs, as a markdown table.

    python benchmarks/fast_kernels.py --pairs 5 --threads 2 > benchmarks/results/kernels.md

Every ratio is of two times taken one after the other in this process, so a busy machine spreads the ratios but does not
favour a side. On a machine shared with other work use ``--clock cpu --threads 1``: two threads that wait for each other
at every operation then measure the scheduler. Backbones of 125M-class shapes (hidden 768) without a vocabulary head,
batch 1. "forward" runs without a gradient; "forward + backward" takes the gradient of every parameter.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModel

from secateur.kernels import fast

HIDDEN, HEADS, HEAD_DIM, STATE = 768, 24, 64, 128
FFN = 3072


@dataclass(frozen=True)
class Case:
    """One row: what is compared, the model, and the layers of it (more than one only where a pair stays short)."""

    name: str
    family: str
    config: dict[str, Any] = field(default_factory=dict)
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    training_length: int | None = None


_ATTENTION = {"num_attention_heads": 12, "num_key_value_heads": 12, "head_dim": 64}
CASES = (
    Case(
        "Mamba-2",
        "mamba2",
        {"num_hidden_layers": 2, "num_heads": HEADS, "head_dim": HEAD_DIM, "state_size": STATE, "n_groups": 1},
    ),
    Case(
        "Mamba-2, 4 groups",
        "mamba2",
        {"num_hidden_layers": 2, "num_heads": HEADS, "head_dim": HEAD_DIM, "state_size": STATE, "n_groups": 4},
    ),
    Case(
        "gated delta rule",
        "qwen3_5_text",
        {
            **_ATTENTION,
            "num_hidden_layers": 2,
            "layer_types": ["linear_attention", "linear_attention"],
            "intermediate_size": 256,
            "linear_num_key_heads": 6,
            "linear_num_value_heads": 12,
            "linear_key_head_dim": 64,
            "linear_value_head_dim": 128,
        },
    ),
    # the stock backward pass grows with the square of the length: minutes a pass at 2048
    Case("Mamba-1", "mamba", {"num_hidden_layers": 1, "state_size": 16}, training_length=512),
)


def build(family: str, config: dict[str, Any], dtype: torch.dtype) -> Any:
    """A randomly initialised backbone."""
    torch.manual_seed(0)
    fields = {"vocab_size": 1024, "hidden_size": HIDDEN, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return AutoModel.from_config(AutoConfig.for_model(family, **fields, **config), dtype=dtype)


def hybrid_layers() -> dict[str, Any]:
    """Three Mamba-2 layers to one of attention, each followed by an MLP, as in Nemotron-H."""
    mamba = ["linear_attention", "mlp"]
    return {
        **_ATTENTION,
        "layers_block_type": mamba * 3 + ["full_attention", "mlp"],
        "num_hidden_layers": 8,
        "intermediate_size": FFN,
        "mamba_num_heads": HEADS,
        "mamba_head_dim": HEAD_DIM,
        "ssm_state_size": STATE,
        "n_groups": 4,
    }


def linear_flops(model: torch.nn.Module) -> int:
    """Floating-point operations a token of all matrix products with weights."""
    return 2 * sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))


def llama_of_equal_flops(hybrid: torch.nn.Module, length: int, dtype: torch.dtype) -> tuple[Any, float, float]:
    """A four-layer Llama with the MLP width at which both need the same operations; the operations of both a token.

    Counted: products with weights, causal attention (2 * length * hidden a token and layer), and the recurrence itself
    (6 a state element: decay, write, read).
    """
    attention = 2 * length * HIDDEN
    flops = linear_flops(hybrid) + attention + 3 * 6 * HEADS * HEAD_DIM * STATE
    layers = 4
    mlp = flops / layers - attention - 2 * 4 * HIDDEN * HIDDEN
    width = round(mlp / (2 * 3 * HIDDEN) / 32) * 32
    llama = build("llama", {**_ATTENTION, "num_hidden_layers": layers, "intermediate_size": width}, dtype)
    return llama, flops, linear_flops(llama) + layers * attention


def work(model: Any, ids: torch.Tensor, backward: bool) -> None:
    """One pass."""
    if backward:
        model.zero_grad(set_to_none=True)
        model(ids, use_cache=False).last_hidden_state.float().square().mean().backward()
        return
    with torch.no_grad():
        model(ids, use_cache=False)


def passes(args: argparse.Namespace) -> tuple[bool, ...]:
    """Without and with the backward pass."""
    return (False,) if args.forward_only else (False, True)


Clock = Callable[[Callable[[], None], AbstractContextManager[Any]], float]


def stopwatch(now: Callable[[], float]) -> Clock:
    """Seconds of one call inside a context, on the given clock."""

    def timed(f: Callable[[], None], around: AbstractContextManager[Any]) -> float:
        with around:
            start = now()
            f()
            return now() - start

    return timed


def row(name: str, dtype: torch.dtype, backward: bool, pairs: list[tuple[float, float]]) -> str:
    """A table row: seconds as medians, the ratio first / second as min, median and max over the pairs."""
    ratios = sorted(a / b for a, b in pairs)
    first, second = (statistics.median(side) for side in zip(*pairs, strict=True))
    what = "forward + backward" if backward else "forward"
    number = str(dtype).removeprefix("torch.")
    middle = statistics.median(ratios)
    spread = f"{ratios[0]:.2f} | **{middle:.2f}** | {ratios[-1]:.2f}"
    return f"| {name} | {number} | {what} | {first:.3f} | {second:.3f} | {spread} |"


def against_stock(case: Case, timed: Clock, args: argparse.Namespace) -> Iterator[str]:
    """Stock time over fast time."""
    for dtype in case.dtypes:
        model = build(case.family, case.config, dtype)
        for backward in passes(args):
            length = args.training_length or case.training_length or args.length if backward else args.length
            ids = torch.randint(3, 1024, (1, length))
            one = lambda model=model, ids=ids, backward=backward: work(model, ids, backward)  # noqa: E731
            timed(one, fast(model))
            pairs = [(timed(one, nullcontext()), timed(one, fast(model))) for _ in range(args.pairs)]
            yield row(case.name if length == args.length else f"{case.name}, length {length}", dtype, backward, pairs)


def against_llama(timed: Clock, args: argparse.Namespace) -> Iterator[str]:
    """Hybrid's fast time over Llama's time, after scaling both to the same operations."""
    ids = torch.randint(3, 1024, (1, args.length))
    for dtype in (torch.float32, torch.bfloat16):
        hybrid = build("nemotron_h", hybrid_layers(), dtype)
        llama, ours, theirs = llama_of_equal_flops(hybrid, args.length, dtype)
        for backward in passes(args):
            a = lambda hybrid=hybrid, backward=backward: work(hybrid, ids, backward)  # noqa: E731
            b = lambda llama=llama, backward=backward: work(llama, ids, backward)  # noqa: E731
            timed(a, fast(hybrid)), timed(b, nullcontext())
            pairs = [(timed(a, fast(hybrid)), timed(b, nullcontext()) * ours / theirs) for _ in range(args.pairs)]
            yield row("hybrid / Llama", dtype, backward, pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--training-length", type=int, help="for forward + backward, over what a case says")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--forward-only", action="store_true", help="leave the backward pass out")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    timed = stopwatch(time.process_time if args.clock == "cpu" else time.perf_counter)
    print(f"Length {args.length}, batch 1, {args.threads} threads, {args.clock} clock, {args.pairs} pairs,", end=" ")
    print(f"torch {torch.__version__}, transformers {transformers.__version__},", end=" ")
    print(f"{platform.machine()}, matrix unit: {amx()}.\n")
    head = (
        "| case | dtype | pass | {} (s) | {} (s) | ratio min | median | max |\n|---|---|---|---:|---:|---:|---:|---:|"
    )
    print(head.format("stock", "fast"))
    for case in CASES:
        if args.only.lower() in case.name.lower():
            emit(against_stock(case, timed, args))
    if args.only.lower() in "hybrid / llama":
        print("\n" + head.format("hybrid, fast", "Llama of equal FLOPs"))
        emit(against_llama(timed, args))


def amx() -> str:
    """Whether bf16 products run on AMX."""
    check = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return "AMX" if check() else "none"


def emit(rows: Iterator[str]) -> None:
    """Print rows as they come."""
    for line in rows:
        print(line, flush=True)
        print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
