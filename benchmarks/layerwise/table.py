"""Tables of benchmarks/README.md from the results alone.

python -m benchmarks.layerwise.table            prints them
python -m benchmarks.layerwise.table --write    also puts them between their marks in benchmarks/README.md
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.common.tables import pick, show, spread, table, values
from benchmarks.common.units import read

FAMILIES = ("sparsify", "quantize", "factorize")


def tables(name: str, results: Path) -> Iterator[str]:
    """One table for each parent: held-out loss and median layer error at every level."""
    family = importlib.import_module(f"benchmarks.layerwise.{name}")
    lines = read(results / family.FILE)
    for parent in dict.fromkeys(line["settings"]["parent"] for line in lines):
        mine = pick(lines, parent=parent)
        whole = values(pick(mine, method="parent"), "loss")
        head = ["method", *(f"{level}: {what}" for level in family.LEVELS for what in ("loss", "layer error"))]
        rows = []
        for label in family.ROWS:
            row = [label]
            for level in family.LEVELS:
                found = pick(mine, method=label, level=level)
                measured = [line["result"]["error_measured"] for line in found if "error_measured" in line["result"]]
                taken = [line for line in found if "refused" not in line["result"]]
                refused = "refused" if found and not taken else None
                row += [refused or spread(values(taken, "loss")), spread(measured, 4)]
            if any(text != "-" for text in row[1:]):
                rows.append(row)
        if rows:
            yield f"**{parent}**, uncompressed {spread(whole).partition(' ')[0]} nats/token\n\n{table(head, rows)}"


def sections(name: str, results: Path) -> str:
    return "\n\n".join(tables(name, results))


if __name__ == "__main__":
    show("benchmarks.layerwise.table", __doc__, {f"layerwise-{name}": partial(sections, name) for name in FAMILIES})
