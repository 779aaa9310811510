"""The table of benchmarks/README.md from the results alone; ``--write`` puts it between its marks."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.engines.run import RESULTS
from benchmarks.halving.table import table

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- engines: begin -->", "<!-- engines: end -->"
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


def rows(path: Path = RESULTS) -> list[list[str]]:
    """The last result of every file."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    last = {(x["parent"], x["label"]): x for x in lines}
    return [
        [
            x["parent"], x["label"], x["type"], f"{x['bytes'] / 1e6:.2f}", f"{x['kl']:.1e}", f"{x['top1']:.1%}",
            f"{x['loss']:.3f}", f"{x['prefill']:,.0f} ({x['prefill_ratio']:.2f}x)",
            f"{x['decode']:,.0f} ({x['decode_ratio']:.2f}x)",
        ]
        for x in last.values()
    ]  # fmt: skip


def main() -> None:
    p = argparse.ArgumentParser(prog="python -m benchmarks.engines.table")
    p.add_argument("--write", action="store_true")
    text = table(HEAD, rows())
    print(text)
    whole = README.read_text(encoding="utf-8")
    if p.parse_args().write and BEGIN in whole:
        before, rest = whole.split(BEGIN)
        README.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
