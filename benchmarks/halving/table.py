"""Tables of benchmarks/README.md and the curve beside it, from the results alone.

python -m benchmarks.halving.table            prints the tables, and writes halving-curve.svg into the results
python -m benchmarks.halving.table --write    also puts them between the marks in benchmarks/README.md
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.common.tables import Line, pick, show, spread, table, values
from benchmarks.common.units import read
from benchmarks.halving import axes, budget, curve, healing, oneshot
from benchmarks.halving.children import METHODS

NAMES = {"45": "45%", "60": "60%", "heads": "28 of 32 heads"}


def one_shot(lines: list[Line], shapes: Sequence[str]) -> str:
    parent, rows = pick(lines, method="parent"), []
    for method in ("parent", *METHODS):
        row = [method]
        for shape in shapes:
            found = parent if method == "parent" else pick(lines, method=method, shape=shape)
            row += [spread(values(found, "loss")), spread(values(found, "bits_per_byte"))]
        if any(cell != "-" for cell in row[1:]):
            rows.append(row)
    return table(["method", *(f"{NAMES[s]}: {unit}" for s in shapes for unit in ("nats/token", "bits/byte"))], rows)


def misplaced(lines: list[Line]) -> str:
    """How many kept heads of the group-blind cuts run on another group's B and C."""
    found = [line for line in lines if "misplaced_heads" in line["result"]]
    told = {(line["settings"]["shape"], line["settings"]["method"]) for line in found}
    rows = []
    for shape, method in sorted(told):
        counts = values(pick(found, shape=shape, method=method), "misplaced_heads")
        rows.append([f"{NAMES[shape]}, {method}", spread(counts, 1)])
    return table(["cut", "heads in a foreign group, over all layers"], rows)


def healed(lines: list[Line]) -> str:
    rows = []
    for run in healing.RUNS:
        found = pick(lines, run=run)
        if not found:
            continue
        tokens = sorted({line["settings"]["tokens"] for line in found})
        at = [f"{t:,}" for t in tokens]
        told = [spread(values(found, key)) for key in ("before", "loss", "bits_per_byte")]
        rows.append([run, *told, ", ".join(at) or "-"])
    return table(["run", "nats/token before", "after", "bits/byte after", "tokens"], rows)


def headline(lines: list[Line], long: list[Line]) -> str:
    """Tokens that prune + KD took to the loss of the same shape from scratch on the whole budget."""
    if not long:
        return "The long run from scratch has not ended."
    budget_tokens, rows = max(line["settings"]["tokens"] for line in long), []
    long = pick(long, tokens=budget_tokens)
    target = statistics.mean(values(long, "loss"))
    points = long[0]["result"]["curve"] + [[budget_tokens, long[0]["result"]["loss"]]]
    for line in (line for run in healing.RUNS if run.startswith("pruned + KD") for line in pick(lines, run=run)):
        tokens, result = line["settings"]["tokens"], line["result"]
        same = first_below(points, result["loss"])
        took = first_below(result["curve"], target)
        rows.append(
            [
                f"{tokens:,}",
                str(line["settings"]["seed"]),
                f"{took:,} ({budget_tokens / took:.0f}x fewer)" if took else f"not in {tokens:,}",
                f"{result['loss']:.3f}",
                f"{same:,} ({same / tokens:.0f}x more)" if same else f"not in {budget_tokens:,}",
            ]
        )
    text = f"Scratch + CE on {budget_tokens:,} tokens: {spread(values(long, 'loss'))} nats/token, "
    text += f"{spread(values(long, 'bits_per_byte'))} bits/byte.\n\n"
    head = ["schedule", "seed", "prune + KD reaches that after", "prune + KD at its end", "scratch reaches that after"]
    return text + table(head, rows)


def first_below(points: Sequence[Sequence[float]], target: float) -> int | None:
    """The first looked-at number of tokens with a loss of ``target`` or less."""
    return next((int(tokens) for tokens, loss in points if loss <= target), None)


def by_axis(lines: list[Line]) -> str:
    rows = []
    for axis in axes.AXES:
        found = pick(lines, axis=axis)
        removed = ", ".join(sorted({f"{line['result']['removed_parameters']:,}" for line in found}))
        rows.append([axis, removed or "-", *(spread(values(found, key), 4) for key in ("before", "loss"))])
    return table(["axis", "parameters removed", "cut", f"healed on {axes.TOKENS:,} tokens"], rows)


def sections(results: Path) -> str:
    lines = {module: read(results / module.FILE) for module in (oneshot, healing, budget, axes)}
    parts: list[tuple[str, Callable[[], str]]] = [
        ("One shot", lambda: one_shot(lines[oneshot], ("60", "45"))),
        ("Heads over the borders of groups", lambda: one_shot(lines[oneshot], ("heads",))),
        ("Misplaced heads", lambda: misplaced(lines[oneshot])),
        ("Healing", lambda: healed(lines[healing])),
        ("Tokens to the same loss", lambda: headline(lines[healing], lines[budget])),
        ("Heads, head channels or state", lambda: by_axis(lines[axes])),
    ]
    (results / "halving-curve.svg").write_text(curve.draw(lines[healing], lines[budget], lines[oneshot]))
    return "\n\n".join(f"### {title}\n\n{make()}" for title, make in parts)


if __name__ == "__main__":
    show("benchmarks.halving.table", __doc__, {"halving": sections})
