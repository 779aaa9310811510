"""Tables and the plot of "Past one machine and past memory" in benchmarks/README.md, from the results alone.

python -m benchmarks.scale.table            prints the tables, and draws scale-growth.svg into the results
python -m benchmarks.scale.table --write    also puts the tables between their marks in benchmarks/README.md
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from benchmarks.common.tables import show, table
from benchmarks.common.units import read
from benchmarks.scale import endurance, fit, laptop, plot, shape
from benchmarks.scale.growth import AXES, BASE, FILE, VERBS, machine, measured

LARGE = {
    "8 B": {},
    "70 B": {"hidden_size": 8192, "intermediate_size": 43008, "mamba_num_heads": 256, "layers": 118},
    "500 B": {"hidden_size": 16384, "intermediate_size": 86016, "mamba_num_heads": 512, "layers": 210},
}
RANKS = {"8 B": 1, "70 B": 16, "500 B": 128}


def road(folder: Path) -> str:
    """The stages at 8 B."""
    return laptop.table([line for line in read(folder / laptop.FILE.name) if line["settings"]["scale"] == 1.0])


def endured(folder: Path) -> str:
    """The faults of the last long run, and how it ended."""
    lines = read(folder / endurance.FILE.name)
    return endurance.table(lines[-1]) if lines else "Not run yet."


def growth(folder: Path) -> str:
    results = folder / FILE.name
    (folder / "scale-growth.svg").write_text(plot.draw(results), encoding="utf-8")
    return f"{points(results)}\n\n{forecast(results)}"


def points(results: Path) -> str:
    """Measured against predicted, axis by axis."""
    weights, rates, rows = fit.fit(results), machine(results), []
    by = {(verb, p): result for verb, p, result in measured(results)}
    for verb in VERBS:
        for axis, places in AXES.items():
            for p in places:
                if (verb, p) not in by or verb not in weights or (axis != "layers" and p == BASE):
                    continue
                seconds, memory = fit.predicted(verb, p, weights[verb], rates)
                r = by[verb, p]
                rows.append((
                    f"{verb}, {axis} {asdict(p)[axis]}", f"{r['cpu_seconds']:.1f}", f"{seconds:.1f}",
                    f"{r['peak_bytes'] / 2**20:.0f}", f"{memory / 2**20:.0f}",
                ))  # fmt: skip
    return table(["verb, at", "processor seconds", "predicted", "peak MiB", "predicted"], rows)


def forecast(results: Path) -> str:
    """Hours, memory and disk of the road at sizes nobody ran here, on this machine and on GPUs."""
    from secateur.cost import price

    rates, rows = machine(results), []
    for name, over in LARGE.items():
        fields, ranks = dict(over), RANKS[name]
        layers = fields.pop("layers", None)
        raw = {**shape.config(1.0), **fields}
        if layers:
            pattern = (shape.PATTERN * (layers // len(shape.PATTERN) + 1))[:layers]
            raw |= {"hybrid_override_pattern": pattern, "num_hidden_layers": layers}
        parameters = fit.opened(raw).anatomy.count()
        for verb, w in fit.counted(raw, train_tokens=10**9, ranks=ranks).items():
            found = price(verb, w, rates)
            gpu = f"{found.gpu_seconds * (ranks if verb == 'calibrate' else 1) / 3600:,.3g}" if w.flops else "-"
            rows.append((
                f"{parameters / 1e9:.0f} B, {verb}" + (f", {ranks} processes" if ranks > 1 else ""),
                f"{found.seconds / 3600:,.1f}", gpu, f"{found.memory / 2**30:,.1f}", f"{found.disk / 1e9:,.0f}",
            ))  # fmt: skip
    return table(["model, step", "hours here (one thread)", "GPU-hours", "memory per process, GiB", "disk, GB"], rows)


if __name__ == "__main__":
    show("benchmarks.scale.table", __doc__, {"scale road": road, "scale growth": growth, "scale endurance": endured})
