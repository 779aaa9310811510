"""Processor seconds against layers, hidden size and tokens: measured, and dashed what the closed form says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from benchmarks.common.plots import figure, svg
from benchmarks.scale import fit
from benchmarks.scale.growth import AXES, VERBS, machine, measured

SHOWN = ("layers", "hidden", "tokens")
COLOURS = dict(zip(VERBS, ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#d08300"), strict=True))


def draw(results: Path) -> str:
    """An SVG with one panel an axis, log-log."""
    weights, rates = fit.fit(results), machine(results)
    by = {(verb, p): result for verb, p, result in measured(results)}
    drawn, panels = figure(9, 3.2, len(SHOWN))
    for panel, axis in zip(panels, SHOWN, strict=True):
        places = AXES[axis]
        panel.set(xscale="log", yscale="log", xlabel=axis)
        panel.set_xticks([asdict(p)[axis] for p in places], [str(asdict(p)[axis]) for p in places], minor=False)
        panel.minorticks_off()
        for verb in VERBS:
            seen = [p for p in places if (verb, p) in by]
            x = [asdict(p)[axis] for p in seen]
            panel.plot(x, [by[verb, p]["cpu_seconds"] for p in seen], "o-", ms=3, color=COLOURS[verb], label=verb)
            if verb in weights:
                said = [fit.predicted(verb, p, weights[verb], rates)[0] for p in seen]
                panel.plot(x, said, "--", color=COLOURS[verb])
    panels[0].set_ylabel("processor seconds")
    panels[0].set_yticks([3, 5, 10, 20, 30], ["3", "5", "10", "20", "30"])
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(VERBS), frameon=False)
    return svg(drawn)
