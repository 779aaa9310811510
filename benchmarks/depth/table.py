"""Tables of benchmarks/README.md, from the results alone.

python -m benchmarks.depth.table            prints them
python -m benchmarks.depth.table --write    also puts them between the marks in benchmarks/README.md
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.tables import Line, pick, show, spread, table, values
from benchmarks.common.units import read
from benchmarks.depth import blocks, grain
from benchmarks.depth.ground import SHARES, count

_SAME = 1e-7
"""KL in nats by which two choices of equal worth may differ."""


def names(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line["settings"]["parent"] for line in lines))


def kl(lines: Sequence[Line]) -> str:
    """Held-out KL by method and share, a table for every parent."""
    out = []
    for parent in names(lines):
        of_parent = pick(lines, parent=parent)
        n = of_parent[0]["result"]["blocks"]
        rows = []
        for method in blocks.METHODS:
            found = [pick(of_parent, method=method, share=share) for share in SHARES]
            if any(found):
                rows.append([method, *(spread(values(f, "held-out kl"), 4) for f in found), optima(of_parent, method)])
        head = ["method", *(f"{share}%: {count(share, n)} of {n}" for share in SHARES), "best of all found"]
        out.append(f"**{parent}**, {n} blocks\n\n{table(head, rows)}")
    return "\n\n".join(out) or "no results yet"


def optima(lines: Sequence[Line], method: str) -> str:
    """In how many runs the method's KL on its calibration text is that of the best choice."""
    hits = [
        line["result"]["kl"] <= best[0]["result"]["kl"] + _SAME
        for line in pick(lines, method=method)
        if (best := pick(lines, method="exhaustive", **{k: line["settings"][k] for k in ("seed", "share")}))
    ]
    return f"{sum(hits)} of {len(hits)}" if hits else "-"


def order(lines: Sequence[Line]) -> str:
    """EvoPress <= greedy <= one-shot cosine in held-out KL, run by run."""
    rows = []
    pairs = [("EvoPress", "greedy, KL"), ("EvoPress", "greedy, loss"), ("greedy, KL", "one-shot cosine")]
    pairs += [("greedy, loss", "one-shot cosine"), ("EvoPress", "one-shot cosine")]
    for a, b in pairs:
        row = [f"{a} <= {b}"]
        for what in ("kl", "held-out kl"):
            runs = [
                (line["result"][what], other[0]["result"][what])
                for line in pick(lines, method=a)
                if (other := pick(lines, method=b, **{k: line["settings"][k] for k in ("parent", "seed", "share")}))
            ]
            row.append(f"{sum(x <= y + _SAME for x, y in runs)} of {len(runs)}")
        rows.append(row)
    return table(["holds in", "calibration text", "held-out text"], rows)


def path(lines: Sequence[Line]) -> str:
    """Rise of the held-out loss by number of Mamba blocks and of scans that are gone, a table for every parent."""
    out = []
    for parent in names(lines):
        runs = {g: pick(lines, parent=parent, grain=g) for g in grain.GRAINS}
        n = pick(lines, parent=parent)[0]["result"]["blocks"]
        rows = []
        for k in range(1, n + 1):
            row = [f"{k} of {n}"]
            for g in grain.GRAINS:
                steps = [line["result"]["path"][k - 1] for line in runs[g] if len(line["result"]["path"]) >= k]
                row += [spread((s[what] for s in steps), 3) for what in ("held-out nll", "held-out kl")]
            rows.append(row)
        told = ["blocks: loss", "blocks: KL", "scans: loss", "scans: KL"]
        out.append(f"**{parent}**\n\n{table(['gone', *told], rows)}")
    return "\n\n".join(out) or "no results yet"


def sections(results: Path) -> str:
    found, grains = read(results / blocks.FILE), read(results / grain.FILE)
    parts = [
        ("Held-out KL without some blocks", kl(found)),
        ("The order of the methods", order(found)),
        ("Whole Mamba blocks or their scans", path(grains)),
    ]
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in parts)


if __name__ == "__main__":
    show("benchmarks.depth.table", __doc__, {"depth": sections})
