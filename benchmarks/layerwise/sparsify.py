"""Sparsity at 50% and 2:4."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.layerwise.cells import Cell, cell

from secateur.layerwise.sparsify import SPARSIFY

FILE = "layerwise-sparsify.jsonl"
LEVELS = ("50%", "2:4")
IN_TURN = "sparsegpt, linear by linear"
SWAPS = 64
"""Exchanges a row: most of the gain comes first, and a wide layer would take hours to the end."""


def cells() -> Iterator[Cell]:
    """Methods in the order their papers put them, worst first."""
    for level in LEVELS:

        def row(label: str, name: str, tier: int = 0, level: str = level, **options: Any) -> Cell:
            return cell("sparsify", label, level, SPARSIFY[name], tier, pattern=level, **options)

        yield row("magnitude", "magnitude")
        yield row("wanda", "wanda")
        yield row("sparsegpt", "sparsegpt", **({} if ":" in level else {"scope": "row"}))
        yield row(IN_TURN, "sparsegpt", 1, sequential="linear", **({} if ":" in level else {"scope": "row"}))
        yield row("mrp SM", "mrp")
        if ":" in level:
            yield row("mrp MM", "mrp", variant="MM")
        else:
            yield row("sparsegpt, block threshold", "sparsegpt", 1)
            yield row("blocks of 1 x 4", "block", 2)
        yield row("chita", "chita", 1)
        yield row(f"swap, {SWAPS} a row", "swap", 2, swaps=SWAPS)
        yield row("obc", "obc", 2)


ROWS = ("magnitude", "wanda", "sparsegpt", "sparsegpt, block threshold", IN_TURN, "mrp SM", "mrp MM", "chita", "obc",
        f"swap, {SWAPS} a row", "blocks of 1 x 4")  # fmt: skip
