"""The healing curves as one SVG: held-out loss against tokens, on a logarithmic axis of tokens."""

from __future__ import annotations

from typing import Any

from benchmarks.common.plots import figure, svg

COLOURS = {
    "pruned + KD": "#0b6e4f",
    "pruned + KD, long": "#3fb68b",
    "pruned + KD, longer": "#8fd9bd",
    "pruned + CE": "#c8553d",
    "scratch + CE": "#5b6c8f",
    "scratch + KD": "#8d6bb0",
    "scratch + CE, long": "#222222",
}
FIRST = 25_000
"""Where tokens = 0 is drawn on the logarithmic axis."""
TICKS = (50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 12_000_000)
HIGHEST = 2.0
"""Nats above the best loss that are shown."""
Line = dict[str, Any]


def draw(healing: list[Line], budget: list[Line], oneshot: list[Line]) -> str:
    """An SVG with every run's curve; nothing but axes when there are none."""
    runs = [(line["settings"]["run"], line["result"]["curve"]) for line in healing]
    for line in budget:
        end = [line["settings"]["tokens"], line["result"]["loss"]]
        runs.append(("scratch + CE, long", [*line["result"]["curve"], end]))
    drawn, (panel,) = figure(8.6, 4.6)
    panel.set(xscale="log", xlabel="tokens trained on", ylabel="held-out nats per token")
    panel.set_xticks([FIRST, *TICKS], ["0", *(f"{t / 1e6:g} M" for t in TICKS)])
    panel.minorticks_off()
    for line in [line for line in oneshot if line["settings"]["method"] == "parent"][:1]:
        panel.axhline(line["result"]["loss"], color="#999999", ls="--", label="parent")
    named: set[str] = set()
    for name, points in runs:
        x, y = [max(t, FIRST) for t, _ in points], [loss for _, loss in points]
        panel.plot(x, y, color=COLOURS[name], label=None if name in named else name)
        named.add(name)
    if runs:
        low = min(loss for _, points in runs for _, loss in points)
        panel.set_ylim(low - 0.12, min(low + HIGHEST, panel.get_ylim()[1]))
        panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return svg(drawn)
