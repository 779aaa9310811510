"""The weights of the closed form behind ``secateur plan --cost``, fitted to what benchmarks.scale measured.

    python -m benchmarks.scale.fit [--results FILE]       writes src/secateur/cost/fitted.json

Non-negative least squares on relative errors: the small shapes of benchmarks.scale.growth, and the 8 B road of
benchmarks.scale.laptop where it lies beside them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common.units import read
from benchmarks.scale import shape
from benchmarks.scale.growth import BATCH, FILE, LENGTH, VERBS, Point, machine, measured

TERMS = ("start", "compute", "hash")
CAST = 3.0
"""Seconds for a billion entries turned into float32, by a profile of calibrating 8 B: tiny shapes do not show it."""
VERBS_8B = ("calibrate", "prune", "eval")
"""Of the 8 B road, what the closed form counts at the load it ran with; a repair is counted at its own defaults."""


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
    """(verb, its work, seconds) of the 8 B road, on one thread."""
    found = []
    for line in read(results.with_name("scale-laptop.jsonl")):
        s = line["settings"]
        if s["stage"] in VERBS_8B:
            load = {k: s[k] for k in ("samples", "length", "batch")}
            found.append((s["stage"], counted(shape.config(s["scale"]), **load)[s["stage"]], line["result"]["seconds"]))
    return found


def fit(results: Path) -> dict[str, dict[str, float]]:
    """Weights of the terms for every verb with at least as many points as terms; the 8 B point counts as much as all
    small ones."""
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
            rows.append([weight * each[t] / seconds for t in TERMS])
            wanted.append(weight * (1 - CAST * each["cast"] / seconds))
        if len(rows) >= len(TERMS):
            solution, _ = nnls(np.array(rows), np.array(wanted))
            weights[verb] = {"disk": 1.0, "cast": CAST, **{t: float(w) for t, w in zip(TERMS, solution, strict=True)}}
    return weights


def predicted(verb: str, p: Point, weights: dict[str, float], rates: Any) -> tuple[float, float]:
    """(processor seconds over all ranks, memory) that the closed form says."""
    from secateur.cost.predict import terms

    work = works(p)[verb]
    each = terms(work, rates)
    return p.ranks * sum(weights.get(t, 0.0) * each[t] for t in (*TERMS, "cast")), work.memory


def main() -> None:
    from secateur.cost.predict import FITTED

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=FILE)
    note = "written by benchmarks/scale/fit.py from benchmarks/results/scale-growth.jsonl and scale-laptop.jsonl"
    weights = fit(parser.parse_args().results)
    FITTED.write_text(json.dumps({"about": note, "weights": weights}, indent=1) + "\n")


if __name__ == "__main__":
    main()
