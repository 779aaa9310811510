"""4, 3 and 2 bits in groups of 128 columns (or the largest divisor of the row near it), and signs alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.layerwise.cells import Cell, cell

from secateur.layerwise.quantize import QUANTIZE
from secateur.layerwise.quantize.run import quantize
from secateur.layerwise.run import Job
from secateur.model import Model

FILE = "layerwise-quantize.jsonl"
LEVELS = ("4 bit", "3 bit", "2 bit", "1 bit")


def cells() -> Iterator[Cell]:
    """Methods in the order their papers put them, worst first."""
    for level in LEVELS[:3]:
        bits = int(level.partition(" ")[0])

        def row(label: str, name: str, tier: int = 0, level: str = level, bits: int = bits, **options: Any) -> Cell:
            return cell("quantize", label, level, QUANTIZE[name], tier, bits=bits, **options)

        yield row("rtn, min-max", "rtn", search="minmax")
        yield row("rtn", "rtn")
        yield row("bct", "bct")
        yield row("higgs", "higgs")
        yield row("nupes", "nupes", 1)
        yield row("gptq, columns as they are", "gptq", 1, order="none")
        yield row("gptq", "gptq")
        yield row("gptq, linear by linear", "gptq", 1, sequential="linear")
        yield row("decoupleq", "decoupleq")
        yield row("obq", "obq", 2)
        yield mixed(level, bits)
    yield cell("quantize", "onebit", "1 bit", QUANTIZE["onebit"])


def mixed(level: str, bits: int) -> Cell:
    """GPTQ at widths shared out by rounding errors, in as many bytes."""

    def make(parent: Model, windows: Any, out: Path, batch: int) -> object:
        job = Job(step="quantize", batch=batch)
        return quantize(parent, windows, out, "gptq", job, bits=float(bits), store="dense", allocate="dynamic")

    return Cell("gptq, mixed bits", level, make, 1)


ROWS = ("rtn, min-max", "rtn", "bct", "higgs", "nupes", "gptq, columns as they are", "gptq", "gptq, linear by linear",
        "obq", "decoupleq", "gptq, mixed bits", "onebit")  # fmt: skip
