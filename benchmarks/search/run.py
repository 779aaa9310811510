"""The driver: ``python -m benchmarks.search.run shapes --work OUT``; see the package."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from benchmarks.common.tables import RESULTS
from benchmarks.common.units import run_all
from benchmarks.search import latency, shapes
from benchmarks.search.ground import Ground

import secateur.demo
from secateur.errors import SecateurError

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
    transformers.logging.set_verbosity_error()
    settings = parse(arguments)
    torch.set_num_threads(1)  # several processes of one thread beat one of several
    ground = Ground(settings.parent, settings.name, tuple(settings.text), tuple(settings.held_out), settings.work)
    try:
        for name in settings.experiments:
            found = EXPERIMENTS[name].units(ground, settings.seeds)
            wanted = (u for u in found if all(word in u.name for word in settings.only))
            path = settings.results / EXPERIMENTS[name].FILE
            count = run_all(wanted, path, settings.work / "locks", say)
            say(f"{name}: {count} units run, results in {path}")
    except SecateurError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def say(text: str) -> None:
    print(f"{datetime.now():%H:%M:%S}  {text}", flush=True)


if __name__ == "__main__":
    main()
