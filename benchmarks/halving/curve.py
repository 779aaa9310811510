"""The healing curves as one SVG: held-out loss against tokens, on a logarithmic axis of tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 820, 460, 60, 170, 20, 46
COLOURS = {
    "pruned + KD": "#0b6e4f",
    "pruned + KD, long": "#3fb68b",
    "pruned + KD, longer": "#8fd9bd",
    "pruned + CE": "#c8553d",
    "scratch + CE": "#5b6c8f",
    "scratch + KD": "#8d6bb0",
    "scratch + CE, long": "#222222",
    "parent": "#999999",
}
FIRST = 25_000
"""Where tokens = 0 is drawn on the logarithmic axis."""
Line = dict[str, Any]


def draw(healing: list[Line], budget: list[Line], oneshot: list[Line]) -> str:
    """An SVG with every run's curve; nothing but axes when there are none."""
    runs = [(line["settings"]["run"], line["result"]["curve"]) for line in healing]
    for line in budget:
        end = [line["settings"]["tokens"], line["result"]["loss"]]
        runs.append(("scratch + CE, long", [*line["result"]["curve"], end]))
    shown = [(n, [(max(t, FIRST), loss) for t, loss in points]) for n, points in runs]
    parent = [line["result"]["loss"] for line in oneshot if line["settings"]["method"] == "parent"][:1]
    losses = [loss for _, points in shown for _, loss in points] + parent or [4.0, 5.0]
    low, high = min(losses) - 0.05, min(max(losses), min(losses) + 2.0) + 0.05
    tokens = [t for _, points in shown for t, _ in points] or [FIRST, 10**6]
    plot = Plot(math.log(FIRST), math.log(max(tokens) * 1.05), low, high)
    return plot.svg(shown, parent)


class Plot:
    """A frame with a logarithmic axis of tokens and a linear one of nats."""

    def __init__(self, left: float, right: float, low: float, high: float) -> None:
        self.left, self.right, self.low, self.high = left, right, low, high

    def x(self, tokens: float) -> float:
        return LEFT + (math.log(tokens) - self.left) / (self.right - self.left) * (WIDTH - LEFT - RIGHT)

    def y(self, loss: float) -> float:
        part = (min(loss, self.high) - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)

    def svg(self, runs: Iterable[tuple[str, list[tuple[float, float]]]], parent: list[float]) -> str:
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
            'font-size="12"><rect width="100%" height="100%" fill="white"/>',
            *self.axes(),
        ]
        if parent:
            y = self.y(parent[0])
            parts.append(self.line([(LEFT, y), (WIDTH - RIGHT, y)], COLOURS["parent"], 'stroke-dasharray="4 4"'))
        seen = ["parent"] if parent else []
        for name, points in runs:
            parts.append(self.line([(self.x(t), self.y(loss)) for t, loss in points], COLOURS[name]))
            seen += [name] if name not in seen else []
        for i, name in enumerate(seen):
            y = TOP + 16 + 20 * i
            parts.append(self.line([(WIDTH - RIGHT + 8, y - 4), (WIDTH - RIGHT + 28, y - 4)], COLOURS[name]))
            parts.append(f'<text x="{WIDTH - RIGHT + 33}" y="{y}">{name.replace(", ", ",&#160;")}</text>')
        return "\n".join([*parts, "</svg>\n"])

    def axes(self) -> Iterable[str]:
        bottom, end = HEIGHT - BOTTOM, WIDTH - RIGHT
        yield self.line([(LEFT, TOP), (LEFT, bottom), (end, bottom)], "#444")
        for tokens in (50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 12_000_000):
            if self.left < math.log(tokens) < self.right:
                x = self.x(tokens)
                label = f"{tokens / 1e6:g} M"
                yield self.line([(x, TOP), (x, bottom)], "#ddd") + self.text(x, bottom + 16, label, "middle")
        yield self.text(LEFT, bottom + 16, "0", "middle")
        step = 0.1 if self.high - self.low < 1 else 0.25
        for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1):
            y = self.y(i * step)
            yield self.line([(LEFT, y), (end, y)], "#eee") + self.text(LEFT - 6, y + 4, f"{i * step:.2f}", "end")
        yield self.text((LEFT + end) / 2, HEIGHT - 8, "tokens trained on", "middle")
        yield self.text(LEFT + 4, TOP - 6, "held-out nats per token", "start")

    @staticmethod
    def text(x: float, y: float, words: str, anchor: str) -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'

    @staticmethod
    def line(points: Iterable[tuple[float, float]], colour: str, more: str = "") -> str:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5" {more}/>'
