"""Tables of benchmarks/README.md from the results alone.

python -m benchmarks.layerwise.table            prints them
python -m benchmarks.layerwise.table --write    also puts them between their marks in benchmarks/README.md
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.halving.table import pick, spread, table, values
from benchmarks.halving.units import read
from benchmarks.layerwise.run import RESULTS

README = Path(__file__).parents[1] / "README.md"
FAMILIES = ("sparsify", "quantize", "factorize")


def tables(name: str, results: Path = RESULTS) -> Iterator[str]:
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
                row += [spread(values(found, "loss")), spread(measured, 4)]
            if any(text != "-" for text in row[1:]):
                rows.append(row)
        if rows:
            yield f"**{parent}**, uncompressed {spread(whole).partition(' ')[0]} nats/token\n\n{table(head, rows)}"


def main() -> None:
    p = argparse.ArgumentParser(prog="python -m benchmarks.layerwise.table")
    p.add_argument("--write", action="store_true")
    write = p.parse_args().write
    for name in FAMILIES:
        if importlib.util.find_spec(f"benchmarks.layerwise.{name}") is None:
            continue
        text = "\n\n".join(tables(name))
        print(text)
        begin, end = f"<!-- layerwise-{name}: begin -->", f"<!-- layerwise-{name}: end -->"
        whole = README.read_text(encoding="utf-8")
        if write and begin in whole:
            before, rest = whole.split(begin)
            README.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
