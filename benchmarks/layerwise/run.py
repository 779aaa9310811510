"""The driver; see the package."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from benchmarks.common.drive import drive
from benchmarks.common.tables import RESULTS
from benchmarks.common.units import Unit
from benchmarks.layerwise.cells import Bench


def parse(arguments: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="python -m benchmarks.layerwise.run", description="Run what has no result yet.")
    p.add_argument("families", nargs="+", help="modules here: sparsify, quantize, factorize")
    p.add_argument("--name", required=True, help="what the tables call the parent")
    p.add_argument("--parent", type=Path, required=True)
    p.add_argument("--text", type=Path, nargs="+", required=True, help="calibration text")
    p.add_argument("--held-out", type=Path, required=True)
    p.add_argument("--work", type=Path, required=True, help="locks")
    p.add_argument("--results", type=Path, default=RESULTS)
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--tiers", type=int, nargs="+", default=[0, 1, 2], help="0 quick, 2 slow")
    p.add_argument("--samples", type=int, default=Bench.samples, help="windows; the last batch judges")
    p.add_argument("--length", type=int, default=Bench.length)
    p.add_argument("--limit", default=Bench.limit, help="held-out text that is read")
    p.add_argument("--only", nargs="+", default=[], help="units whose name holds all of these")
    return p.parse_args(arguments)


def units(family: Any, bench: Bench, settings: argparse.Namespace) -> Iterator[Unit]:
    """The parent first, then tier by tier, seed by seed."""
    yield Unit({"parent": settings.name, "method": "parent"}, lambda: bench.loss(bench.parent))
    cells = sorted(family.cells(), key=lambda c: c.tier)
    for tier in settings.tiers:
        for seed in settings.seeds:
            for cell in cells:
                if cell.tier == tier and (cell.seeded or seed == settings.seeds[0]):
                    told = {"parent": settings.name, "method": cell.label, "level": cell.level, "seed": seed}
                    yield Unit(told, partial(bench.run, cell, seed))


def main(arguments: list[str] | None = None) -> None:
    transformers.logging.set_verbosity_error()
    settings = parse(arguments)
    bench = Bench(
        settings.parent, settings.text, settings.held_out, settings.samples, settings.length, limit=settings.limit,
        window=settings.length,
    )  # fmt: skip

    def experiments() -> Iterator[tuple[str, Iterable[Unit], Path]]:
        for name in settings.families:
            family = importlib.import_module(f"benchmarks.layerwise.{name}")
            wanted = (u for u in units(family, bench, settings) if all(word in u.name for word in settings.only))
            yield name, wanted, settings.results / family.FILE

    drive(experiments(), settings.work / "locks")


if __name__ == "__main__":
    main()
