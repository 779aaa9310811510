"""The driver: ``python -m benchmarks.halving.run oneshot --parent CHECKPOINT --work OUT``; see the package."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.common.drive import drive
from benchmarks.common.tables import RESULTS
from benchmarks.common.units import Unit
from benchmarks.halving import axes, budget, healing, oneshot
from benchmarks.halving.bench import Bench

EXPERIMENTS: dict[str, Any] = {"oneshot": oneshot, "healing": healing, "budget": budget, "axes": axes}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="python -m benchmarks.halving.run", description="Run what has no result yet.")
    p.add_argument("experiments", nargs="+", choices=sorted(EXPERIMENTS))
    p.add_argument("--parent", type=Path, required=True, help="checkpoint of the trained parent")
    p.add_argument("--data", type=Path, default=os.environ.get("SECATEUR_DATA"), help="folder of text files")
    p.add_argument("--work", type=Path, required=True, help="token cache, statistics, unfinished runs")
    p.add_argument("--results", type=Path, default=RESULTS)
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--shapes", nargs="+", default=["45", "60"])
    p.add_argument("--samples", type=int, default=64, help="calibration windows")
    p.add_argument("--rows", type=int, default=128, help="rows of judging text")
    p.add_argument("--judge", choices=["held-out", "train"], default="held-out")
    p.add_argument("--length", type=int, default=512, help="tokens in a window")
    p.add_argument("--only", nargs="+", default=[], help="units whose name holds all of these")
    p.add_argument("--skip", nargs="+", default=[], help="not units whose name holds any of these")
    return p.parse_args(arguments)


def units(name: str, bench: Bench, settings: argparse.Namespace) -> Iterable[Unit]:
    found = EXPERIMENTS[name].units(bench, settings.seeds, settings.shapes)
    wanted = (u for u in found if all(word in u.name for word in settings.only))
    return (u for u in wanted if not any(word in u.name for word in settings.skip))


def main(arguments: list[str] | None = None) -> None:
    settings = parse(arguments)
    bench = Bench(
        settings.parent,
        settings.data and Path(settings.data),
        settings.work,
        settings.samples,
        settings.rows,
        settings.judge,
        settings.length,
    )
    found = ((n, units(n, bench, settings), settings.results / EXPERIMENTS[n].FILE) for n in settings.experiments)
    drive(found, settings.work / "locks")


if __name__ == "__main__":
    main()
