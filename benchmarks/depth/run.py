"""The driver: ``python -m benchmarks.depth.run blocks --parent hybrid=CHECKPOINT --work OUT``; see the package."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.common.drive import drive
from benchmarks.common.tables import RESULTS
from benchmarks.common.units import Unit
from benchmarks.depth import blocks, grain
from benchmarks.depth.ground import Parent
from benchmarks.halving.bench import Bench

from secateur.errors import UsageError

EXPERIMENTS: dict[str, Any] = {"blocks": blocks, "grain": grain}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="python -m benchmarks.depth.run", description="Run what has no result yet.")
    p.add_argument("experiments", nargs="+", choices=sorted(EXPERIMENTS))
    p.add_argument("--parent", action="append", required=True, metavar="NAME=CHECKPOINT", help="may be repeated")
    p.add_argument("--data", type=Path, default=os.environ.get("SECATEUR_DATA"), help="folder of text files")
    p.add_argument("--work", type=Path, required=True, help="token cache")
    p.add_argument("--results", type=Path, default=RESULTS)
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--samples", type=int, default=4, help="calibration windows")
    p.add_argument("--rows", type=int, default=8, help="windows of held-out text")
    p.add_argument("--length", type=int, default=256, help="tokens in a window")
    return p.parse_args(arguments)


def parents(settings: argparse.Namespace) -> list[Parent]:
    """The parents named. Raises UsageError for one that is not there."""
    found = []
    for text in settings.parent:
        name, equals, folder = text.partition("=")
        if not equals or not Path(folder).is_dir():
            raise UsageError(
                f"--parent {text!r}: expected NAME=CHECKPOINT, a folder", hint="train it: benchmarks/parents"
            )
        data = settings.data and Path(settings.data)
        sizes = settings.samples, settings.rows, "held-out", settings.length
        found.append(Parent(name, Bench(Path(folder), data, settings.work, *sizes)))
    return found


def main(arguments: list[str] | None = None) -> None:
    settings = parse(arguments)

    def experiments() -> Iterator[tuple[str, Iterable[Unit], Path]]:
        for name in settings.experiments:
            found = EXPERIMENTS[name].units(parents(settings), settings.seeds)
            yield name, found, settings.results / EXPERIMENTS[name].FILE

    drive(experiments(), settings.work / "locks")


if __name__ == "__main__":
    main()
