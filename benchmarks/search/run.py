"""The driver: ``python -m benchmarks.search.run shapes --work OUT``; see the package."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common.drive import drive
from benchmarks.common.tables import RESULTS
from benchmarks.common.units import Unit
from benchmarks.search import latency, shapes
from benchmarks.search.ground import Ground

import secateur.demo

EMBEDDED = Path(secateur.demo.__file__).parent / "data"
EXPERIMENTS: dict[str, Any] = {"shapes": shapes, "latency": latency}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="python -m benchmarks.search.run", description="Run what has no result yet.")
    p.add_argument("experiments", nargs="+", choices=sorted(EXPERIMENTS))
    p.add_argument("--parent", type=Path, default=EMBEDDED / "parent", help="checkpoint of the trained parent")
    p.add_argument("--name", default="hybrid", help="what the tables call it")
    p.add_argument("--text", type=Path, nargs="+", default=[EMBEDDED / "text" / "training"])
    p.add_argument("--held-out", type=Path, nargs="+", default=[EMBEDDED / "text" / "heldout"])
    p.add_argument("--work", type=Path, required=True, help="journals, latency tables, checkpoints")
    p.add_argument("--results", type=Path, default=RESULTS)
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--only", nargs="+", default=[], help="units whose name holds all of these")
    return p.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    settings = parse(arguments)
    ground = Ground(settings.parent, settings.name, tuple(settings.text), tuple(settings.held_out), settings.work)

    def wanted(name: str) -> Iterator[Unit]:
        found = EXPERIMENTS[name].units(ground, settings.seeds)
        return (u for u in found if all(word in u.name for word in settings.only))

    found = ((n, wanted(n), settings.results / EXPERIMENTS[n].FILE) for n in settings.experiments)
    drive(found, settings.work / "locks")


if __name__ == "__main__":
    main()
