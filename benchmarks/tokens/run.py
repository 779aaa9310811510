"""The driver: ``python -m benchmarks.tokens.run quality --parent CHECKPOINT --name NAME``; see the package."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.common.drive import drive
from benchmarks.common.tables import RESULTS
from benchmarks.common.units import Unit, done
from benchmarks.tokens import clip, quality, schedules
from benchmarks.tokens.bench import WINDOWS, Bench

from secateur.kernels import fast

EXPERIMENTS: dict[str, Any] = {"quality": quality, "clip": clip, "schedule": schedules}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="python -m benchmarks.tokens.run", description="Run what has no result yet.")
    p.add_argument("experiments", nargs="+", choices=sorted(EXPERIMENTS))
    p.add_argument("--parent", type=Path, required=True, help="checkpoint of the trained parent")
    p.add_argument("--name", required=True, help="what tables call it")
    p.add_argument("--data", type=Path, default=os.environ.get("SECATEUR_DATA"), help="folder of text files")
    p.add_argument("--held-out", type=Path, help="text to judge on instead of the data folder's")
    p.add_argument("--work", type=Path, required=True, help="token cache")
    p.add_argument("--results", type=Path, default=RESULTS)
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--prompts", type=int, nargs="+", default=[512], choices=sorted(WINDOWS))
    p.add_argument("--most", type=int, help="stop after so many units of each experiment")
    return p.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    settings = parse(arguments)
    bench = Bench(
        settings.parent, settings.name, settings.data and Path(settings.data), settings.work, settings.held_out
    )

    def experiments() -> Iterator[tuple[str, Iterable[Unit], Path]]:
        with fast(bench.network):
            for name in settings.experiments:
                path = settings.results / EXPERIMENTS[name].FILE
                units = list(EXPERIMENTS[name].units(bench, settings.seeds, settings.prompts))
                if settings.most is not None:
                    units = [u for u in units if not done(u, path)][: settings.most]
                yield name, units, path

    drive(experiments(), settings.work / "locks")


if __name__ == "__main__":
    main()
