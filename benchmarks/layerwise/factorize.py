"""Low rank at 80% and 60% of every linear's parameters; MoDeGPT at 80% and 60% of the inner sizes of its pairs.

MoDeGPT's children keep what it cannot pair (Mamba mixers, rotary attention), so its columns are no equal budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.layerwise.cells import Cell, cell

from secateur.layerwise.factorize import FACTORIZE
from secateur.layerwise.factorize.run import factorize
from secateur.layerwise.run import Job
from secateur.model import Model

FILE = "layerwise-factorize.jsonl"
LEVELS = ("80%", "60%")
SPECTRA = "svd-llm, ranks from spectra"
ROWS = ("svd", "curing", "asvd", "lord", "svd-llm", SPECTRA, "modegpt")


def cells() -> Iterator[Cell]:
    """Methods in the order their papers put them, worst first."""
    for level in LEVELS:
        ratio = float(level.rstrip("%")) / 100
        for name in ("svd", "curing", "asvd", "svd-llm"):
            yield cell("factorize", name, level, FACTORIZE[name], ratio=ratio)
        yield cell("factorize", "lord", level, FACTORIZE["lord"], 1, ratio=ratio)
        yield Cell(SPECTRA, level, _made("svd-llm", ratio, allocate="greedy"))
        yield Cell("modegpt", level, _made("modegpt", ratio))


def _made(method: str, ratio: float, **options: Any) -> Any:
    def make(parent: Model, windows: Any, out: Path, batch: int) -> object:
        return factorize(parent, windows, out, method, Job(step="factorize", batch=batch), ratio=ratio, **options)

    return make
