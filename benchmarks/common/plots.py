"""What every plot of the benchmarks has in common: an SVG whose words are text, and whose bytes depend on nothing but
the numbers."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
from matplotlib.figure import Figure

matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "secateur", "font.size": 9, "axes.grid": True}
matplotlib.rcParams |= {"grid.color": "#e4e4e4", "axes.axisbelow": True, "lines.linewidth": 1.4}


def figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Any]]:
    """A figure of ``width`` x ``height`` inches and its axes, side by side on one vertical scale."""
    made = Figure((width, height), layout="constrained")
    return made, list(made.subplots(1, columns, sharey=True, squeeze=False)[0])


def svg(made: Figure) -> str:
    """The text of the figure's SVG."""
    out = io.StringIO()
    made.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
