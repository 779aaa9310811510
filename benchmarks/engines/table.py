"""The tables of benchmarks/README.md from the results alone; ``--write`` puts them between their marks."""

from __future__ import annotations

from pathlib import Path

from benchmarks.common.tables import Line, show, table
from benchmarks.common.units import read
from benchmarks.engines import served as served_in

HEAD = [
    "parent",
    "file",
    "matrices",
    "MB",
    "KL to transformers",
    "same best token",
    "loss",
    "prefill tok/s",
    "decode tok/s",
]


def rows(path: Path) -> list[list[str]]:
    """The last result of every file."""
    last = {(x["parent"], x["label"]): x for x in read(path)}
    return [
        [
            x["parent"], x["label"], x["type"], f"{x['bytes'] / 1e6:.2f}", f"{x['kl']:.1e}", f"{x['top1']:.1%}",
            f"{x['loss']:.3f}", f"{x['prefill']:,.0f} ({x['prefill_ratio']:.2f}x)",
            f"{x['decode']:,.0f} ({x['decode_ratio']:.2f}x)",
        ]
        for x in last.values()
    ]  # fmt: skip


def sections(results: Path) -> str:
    return table(HEAD, rows(results / "engines.jsonl"))


def served(results: Path) -> str:
    """What vLLM made of the checkpoints; the last result of each."""
    last = {(x["label"], x["dtype"]): x for x in read(results / served_in.FILE)}
    head = ["checkpoint", "computed in", "tokens", "loss", "vLLM's", "log-probabilities apart, mean", "largest"]
    return table(head, [_served(x) for x in last.values()])


def _served(x: Line) -> list[str]:
    told = [x["label"], x["dtype"], str(x["tokens"]), f"{x['loss']:.4f}"]
    if "refused" in x:
        return [*told, f"refused: {x['refused'].rstrip(': ')}", "-", "-"]
    return [*told, f"{x['loss_vllm']:.4f}", f"{x['apart_mean']:.1e}", f"{x['apart_max']:.1e}"]


if __name__ == "__main__":
    show("benchmarks.engines.table", __doc__, {"engines": sections, "engines vllm": served})
