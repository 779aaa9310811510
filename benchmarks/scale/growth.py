"""How time and memory grow with layers, width, tokens and processes, and how well the closed form predicts them.

    python -m benchmarks.scale.growth [--folder DIR] [--results FILE] [--only verb=eval] [--quick]
    python -m benchmarks.scale.fit                    src/secateur/cost/fitted.json from the measurements
    python -m benchmarks.scale.table [--write]        tables, scale-growth.svg; into benchmarks/README.md

Tiny Nemotron-H shapes around one (hidden 256, 8 layers, 1,024 tokens); one axis varies at a time. Every point of every
verb is a unit: one command in a process of its own, with one thread; seconds are processor seconds of all its processes
(machines are shared), memory is the resident peak of the largest. Measured once, written down as a line of ``FILE``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.common.tables import RESULTS
from benchmarks.common.units import Unit, append, read, run_all
from benchmarks.scale import shape

FILE = RESULTS / "scale-growth.jsonl"
VERBS = ("calibrate", "prune", "repair", "eval", "distill")
LENGTH, BATCH = 128, 2


@dataclass(frozen=True)
class Point:
    """One shape and one amount of text, on so many processes."""

    hidden: int = 256
    layers: int = 8
    tokens: int = 1024
    ranks: int = 1

    @property
    def config(self) -> dict[str, Any]:
        made = shape.config(self.hidden / 4096)
        pattern = ("M-*-M-M-" * (self.layers // 8 + 1))[: self.layers]
        return {**made, "hybrid_override_pattern": pattern, "num_hidden_layers": self.layers}


BASE = Point()
AXES: dict[str, list[Point]] = {
    "layers": [replace(BASE, layers=n) for n in (4, 8, 16, 32)],
    "hidden": [replace(BASE, hidden=n) for n in (128, 256, 512, 1024)],
    "tokens": [replace(BASE, tokens=n) for n in (512, 1024, 2048, 4096)],
    "ranks": [replace(BASE, ranks=n) for n in (1, 2)],
}
PARALLEL = ("calibrate", "distill")


def points(quick: bool) -> list[Point]:
    """Every point once; ``quick``: the ends of each axis, and nothing wider than 512."""
    found = dict.fromkeys(p for axis in AXES.values() for p in axis)
    ends = {p for axis in AXES.values() for p in (axis[0], axis[-2], BASE)} | {AXES["ranks"][-1]}
    return [p for p in found if not quick or p in ends]


class Bench:
    """Models and text under ``work``, made when they are first needed."""

    def __init__(self, work: Path) -> None:
        self.work = work

    def parent(self, p: Point) -> Path:
        folder = self.work / f"parent-{p.hidden}-{p.layers}"
        if not folder.exists():
            shape.make(folder.with_name(folder.name + ".part"), self.work / "text.txt", 0, raw=p.config)
            folder.with_name(folder.name + ".part").rename(folder)
        return folder

    def child(self, p: Point) -> Path:
        folder = self.work / f"child-{p.hidden}-{p.layers}"
        if not folder.exists():
            processor(["prune", str(self.parent(p)), *keep(p), "--score", "first", "--out", str(folder)], 1)
        return folder

    def command(self, verb: str, p: Point, out: Path) -> list[str]:
        parent, text = str(self.parent(p)), ["--text", str(self.work / "text.txt")]
        windows = ["--samples", str(p.tokens // LENGTH), "--length", str(LENGTH), "--batch", str(BATCH)]
        tail = ["--out", str(out)]
        if verb == "calibrate":
            return ["calibrate", parent, *text, *windows, *tail]
        if verb == "prune":
            return ["prune", parent, *keep(p), "--score", "first", *tail]
        child = str(self.child(p))
        if verb == "repair":
            return ["repair", child, "--parent", parent, *text, *windows, *tail]
        if verb == "eval":
            sizes = ["--limit", f"{p.tokens}B", "--window", str(LENGTH), "--batch", str(BATCH), "--stream"]
            return ["eval", child, "--parent", parent, *text, *sizes, *tail]
        sizes = ["--tokens", str(p.tokens), "--length", str(LENGTH), "--batch", "4", "--micro-batch", "2"]
        return ["distill", child, "--teacher", parent, *text, *sizes, *tail]

    def measure(self, verb: str, p: Point) -> dict[str, float]:
        out = self.work / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.unlink(missing_ok=True) if out.is_file() else None
        seconds, peak = processor(self.command(verb, p, out), p.ranks)
        shutil.rmtree(out, ignore_errors=True) if out.is_dir() else out.unlink(missing_ok=True)
        return {"cpu_seconds": seconds, "peak_bytes": float(peak)}


def keep(p: Point) -> list[str]:
    return ["--keep", ",".join(f"{k}={v}" for k, v in shape.keep(p.config).items())]


def processor(argv: list[str], ranks: int) -> tuple[float, int]:
    """(processor seconds of all processes, resident peak of the largest) of one command."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    code = (  # in a process of its own, which reports on its children
        "import json, resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "u = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([done.returncode, u.ru_utime + u.ru_stime, u.ru_maxrss * 1024]))"
    )
    command = [sys.executable, "-c", code, sys.executable, *launcher, "-m", "secateur", *argv]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env)
    status, seconds, peak = json.loads(done.stdout.splitlines()[-1])
    if status:
        raise SystemExit(f"failed with exit code {status}: secateur {' '.join(argv)}")
    return seconds, peak


def machine(results: Path) -> Any:
    """The machine's rates, measured once and kept with the results."""
    from secateur.cost import Machine, probe

    found = [line["result"] for line in read(results) if line["settings"].get("unit") == "machine"]
    if not found:
        found = [probe(clock=time.process_time).to_json()]
        append(results, {"settings": {"unit": "machine"}, "result": found[0]})
    return Machine(**found[-1])


def measured(results: Path) -> list[tuple[str, Point, dict[str, float]]]:
    """(verb, point, what it took) of every unit that has been run."""
    found = []
    for line in read(results):
        settings = dict(line["settings"])
        if "verb" in settings:
            found.append((settings.pop("verb"), Point(**settings), line["result"]))
    return found


def units(bench: Bench, quick: bool, only: Iterable[str]) -> list[Unit]:
    wanted = dict(item.split("=", 1) for item in only)
    found = []
    for verb in VERBS:
        for p in points(quick):
            settings = {"verb": verb, **asdict(p)}
            if p.ranks > 1 and verb not in PARALLEL:
                continue
            if all(str(settings.get(k)) == v for k, v in wanted.items()):
                found.append(Unit(settings, lambda verb=verb, p=p: bench.measure(verb, p)))
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--results", type=Path, default=FILE)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args(argv)
    work = args.folder or Path(tempfile.mkdtemp(prefix="scale-growth-"))
    work.mkdir(parents=True, exist_ok=True)
    machine(args.results)
    run_all(units(Bench(work), args.quick, args.only), args.results, work / "locks", print)
    return 0


if __name__ == "__main__":
    sys.exit(main())
