"""How time and memory grow with layers, width, tokens and processes, and how well the closed form predicts them.

    python -m benchmarks.scale.growth [--folder DIR] [--results FILE] [--only verb=eval] [--quick]
    python -m benchmarks.scale.growth --table [--write]       tables, scale-growth.svg; into benchmarks/README.md
    python -m benchmarks.scale.growth --fit                   src/secateur/cost/fitted.json from the measurements

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

from benchmarks.common.tables import README, RESULTS, write_between
from benchmarks.common.units import Unit, append, read, run_all
from benchmarks.scale import shape

FILE = RESULTS / "scale-growth.jsonl"
VERBS = ("calibrate", "prune", "repair", "eval", "distill")
LENGTH, BATCH = 128, 2
FIT = ("start", "compute", "hash")
CAST = 3.0
"""Seconds for a billion entries turned into float32, by a profile of calibrating 8 B: tiny shapes do not show it."""
VERBS_8B = ("calibrate", "prune", "eval")
"""Of the 8 B road, what the closed form counts at the load it ran with; a repair is counted at its own defaults."""


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


def works(p: Point) -> dict[str, Any]:
    """Verb -> what it has to do at a point."""
    return counted(p.config, samples=p.tokens // LENGTH, length=LENGTH, batch=BATCH, ranks=p.ranks,
                   train_tokens=p.tokens, micro_batch=2)  # fmt: skip


def counted(config: dict[str, Any], **load: int) -> dict[str, Any]:
    """Verb -> what it has to do for a shape and a load."""
    from secateur.cost import Load, work
    from secateur.pruning.shape import resolve

    model = opened(config)
    layers = frozenset(range(model.anatomy.n_layers))
    return work(model, resolve(model.anatomy, shape.keep(config)), layers, Load(**load))


def opened(config: dict[str, Any]) -> Any:
    """The model of a config, without weights."""
    from secateur.model import open_model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(config))
        return open_model(path)


def on_8b(results: Path) -> list[tuple[str, Any, float]]:
    """(verb, its work, seconds) of the 8 B road that benchmarks.scale.laptop measured, on one thread."""
    found = []
    for line in read(results.with_name("scale-laptop.jsonl")):
        s = line["settings"]
        if s["stage"] in VERBS_8B:
            load = {k: s[k] for k in ("samples", "length", "batch")}
            found.append((s["stage"], counted(shape.config(s["scale"]), **load)[s["stage"]], line["result"]["seconds"]))
    return found


def measured(results: Path) -> list[tuple[str, Point, dict[str, float]]]:
    found = []
    for line in read(results):
        settings = dict(line["settings"])
        if "verb" in settings:
            found.append((settings.pop("verb"), Point(**settings), line["result"]))
    return found


def fit(results: Path) -> dict[str, dict[str, float]]:
    """Weights of the terms for every verb with at least as many points as terms: least squares of relative errors, in
    which the 8 B point counts as much as all small ones."""
    import numpy as np
    from scipy.optimize import nnls

    from secateur.cost.predict import terms

    rates, weights = machine(results), {}
    small = [(verb, works(p)[verb], r["cpu_seconds"]) for verb, p, r in measured(results) if p.ranks == 1]
    large = on_8b(results)
    for verb in VERBS:
        rows, wanted = [], []
        own = [(terms(w, rates), seconds, 1.0) for v, w, seconds in small if v == verb]
        for v, w, seconds in large:
            if v == verb:  # on the clock, where disks count
                own.append(((each := terms(w, rates)), seconds - each["disk"], len(own) ** 0.5))
        for each, seconds, weight in own:
            rows.append([weight * each[t] / seconds for t in FIT])
            wanted.append(weight * (1 - CAST * each["cast"] / seconds))
        if len(rows) >= len(FIT):
            solution, _ = nnls(np.array(rows), np.array(wanted))
            weights[verb] = {"disk": 1.0, "cast": CAST, **{t: float(w) for t, w in zip(FIT, solution, strict=True)}}
    return weights


def predicted(verb: str, p: Point, weights: dict[str, float], rates: Any) -> tuple[float, float]:
    """(processor seconds over all ranks, memory) that the closed form says."""
    from secateur.cost.predict import terms

    work = works(p)[verb]
    each = terms(work, rates)
    return p.ranks * sum(weights.get(t, 0.0) * each[t] for t in (*FIT, "cast")), work.memory


def table(results: Path) -> str:
    weights, rates = fit(results), machine(results)
    head = ["verb", "axis", "at", "processor seconds", "predicted", "peak MiB", "predicted"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|---:|---:|---:|---:|---:|"]
    by = {(verb, p): result for verb, p, result in measured(results)}
    for verb in VERBS:
        for axis, places in AXES.items():
            for p in places:
                if (verb, p) not in by or verb not in weights or (axis != "layers" and p == BASE):
                    continue
                seconds, memory = predicted(verb, p, weights[verb], rates)
                r, at = by[verb, p], asdict(p)[axis]
                cells = (
                    verb, axis, str(at), f"{r['cpu_seconds']:.1f}", f"{seconds:.1f}",
                    f"{r['peak_bytes'] / 2**20:.0f}", f"{memory / 2**20:.0f}",
                )  # fmt: skip
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


LARGE = {
    "8 B": {},
    "70 B": {"hidden_size": 8192, "intermediate_size": 43008, "mamba_num_heads": 256, "layers": 118},
    "500 B": {"hidden_size": 16384, "intermediate_size": 86016, "mamba_num_heads": 512, "layers": 210},
}


def forecast(results: Path) -> str:
    """Hours, memory and disk of the road at sizes nobody ran here, on this machine and on GPUs."""
    from secateur.cost import price

    rates = machine(results)
    lines = [
        "| model | step | hours here (one thread) | GPU-hours | memory per process, GiB | disk, GB |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, over in LARGE.items():
        fields = dict(over)
        layers = fields.pop("layers", None)
        raw = {**shape.config(1.0), **fields}
        if layers:
            pattern = (shape.PATTERN * (layers // len(shape.PATTERN) + 1))[:layers]
            raw |= {"hybrid_override_pattern": pattern, "num_hidden_layers": layers}
        parameters = opened(raw).anatomy.count()
        ranks = {"8 B": 1, "70 B": 16, "500 B": 128}[name]
        for verb, w in counted(raw, train_tokens=10**9, ranks=ranks).items():
            found = price(verb, w, rates)
            gpu = f"{found.gpu_seconds * (ranks if verb == 'calibrate' else 1) / 3600:,.3g}" if w.flops else "-"
            cells = (
                f"{parameters / 1e9:.0f} B", f"{verb}, {ranks} processes" if ranks > 1 else verb,
                f"{found.seconds / 3600:,.1f}", gpu, f"{found.memory / 2**30:,.1f}", f"{found.disk / 1e9:,.0f}",
            )  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(results: Path) -> str:
    """Measured processor seconds against each axis, log-log, one line per verb; dashed: predicted. An SVG."""
    import math

    weights, rates = fit(results), machine(results)
    by = {(verb, p): result for verb, p, result in measured(results)}
    colours = dict(zip(VERBS, ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#d08300"), strict=True))
    width, height, parts = 250, 200, []
    times = [r["cpu_seconds"] for r in by.values()] or [1.0]
    low, high = math.log(min(times) * 0.8), math.log(max(times) * 1.25)
    for i, axis in enumerate(("layers", "hidden", "tokens")):
        places, left = AXES[axis], 50 + i * (width + 30)
        xs = {p: left + width * j / (len(places) - 1) for j, p in enumerate(places)}
        for p, x in xs.items():
            parts.append(f'<text x="{x:.0f}" y="{height + 38}" text-anchor="middle">{asdict(p)[axis]}</text>')
        parts.append(f'<text x="{left + width / 2:.0f}" y="{height + 54}" text-anchor="middle">{axis}</text>')
        for verb in VERBS:
            seen = [p for p in places if (verb, p) in by]
            lines = [([by[verb, p]["cpu_seconds"] for p in seen], "")]
            if verb in weights:
                lines.append(([predicted(verb, p, weights[verb], rates)[0] for p in seen], ' stroke-dasharray="4 3"'))
            for values, dash in lines:
                dots = " ".join(
                    f"{xs[p]:.1f},{20 + height * (1 - (math.log(max(v, 1e-9)) - low) / (high - low)):.1f}"
                    for p, v in zip(seen, values, strict=True)
                )
                parts.append(f'<polyline points="{dots}" fill="none" stroke="{colours[verb]}"{dash}/>')
    for i, verb in enumerate(VERBS):
        parts.append(f'<text x="{60 + 90 * i}" y="14" fill="{colours[verb]}">{verb}</text>')
    for value in (math.exp(low), math.exp((low + high) / 2), math.exp(high)):
        y = 20 + height * (1 - (math.log(value) - low) / (high - low))
        parts.append(f'<text x="44" y="{y:.0f}" text-anchor="end">{value:.0f} s</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{3 * (width + 30) + 60}" height="{height + 64}" '
        f'font-family="sans-serif" font-size="11">\n{body}\n</svg>\n'
    )


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
    for flag in ("--table", "--write", "--fit"):
        parser.add_argument(flag, action="store_true")
    args = parser.parse_args(argv)
    if args.fit:
        from secateur.cost.predict import FITTED

        note = "written by benchmarks/scale/growth.py --fit from benchmarks/results/scale-growth.jsonl"
        FITTED.write_text(json.dumps({"about": note, "weights": fit(args.results)}, indent=1) + "\n")
        return 0
    if args.table:
        text = table(args.results) + "\n\n" + forecast(args.results)
        args.results.with_suffix(".svg").write_text(plot(args.results), encoding="utf-8")
        print(text)
        if args.write:
            write_between(README, "scale growth", text)
        return 0
    work = args.folder or Path(tempfile.mkdtemp(prefix="scale-growth-"))
    work.mkdir(parents=True, exist_ok=True)
    machine(args.results)
    run_all(units(Bench(work), args.quick, args.only), args.results, work / "locks", print)
    return 0


if __name__ == "__main__":
    sys.exit(main())
