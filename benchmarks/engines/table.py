"""The table of benchmarks/README.md from the results alone; ``--write`` puts it between its marks."""

from __future__ import annotations

from pathlib import Path

from benchmarks.common.tables import show, table
from benchmarks.common.units import read

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


if __name__ == "__main__":
    show("benchmarks.engines.table", __doc__, {"engines": sections})
