"""Tables of benchmarks/search/README.md from the results alone.

python -m benchmarks.search.table            prints the tables
python -m benchmarks.search.table --write    also puts them between the marks in benchmarks/search/README.md
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.common.tables import pick, show, spread, table, values
from benchmarks.common.units import read
from benchmarks.search import latency, shapes

Line = dict[str, Any]


#: Strategies that search, against rules that do not.
SEARCHED = ("minitron", "evolutionary")


def compared(lines: list[Line]) -> str:
    """Every parent and method: what the winner is worth straight after the cut and after equal healing."""
    rows = []
    for parent in dict.fromkeys(line["settings"]["parent"] for line in lines):
        for method in shapes.METHODS:
            found = pick(lines, parent=parent, method=method)
            if found:
                told = [spread(values(found, key)) for key in ("cut_kl", "kl", "loss")]
                sizes = ", ".join(sorted({f"{v:,.0f}" for v in values(found, "parameters")}))
                rows.append([f"{parent}, {method}", *told, sizes, spread(values(found, "search_seconds"), 0)])
    head = ["parent, method", "KL, cut", "KL, healed", "nats/token, healed", "parameters", "search, s"]
    return table(head, rows)


def saved(lines: list[Line]) -> str:
    """How much healing the searched shape saves against each baseline, and what the search cost beside it."""
    rows = []
    for line in (line for method in SEARCHED for line in pick(lines, method=method)):
        mine, settings = line["result"], line["settings"]
        for baseline in ("ten-largest", "uniform"):
            for other in pick(lines, parent=settings["parent"], seed=settings["seed"], method=baseline):
                its = other["result"]
                tokens = first_at(mine["curve"], its["curve"][-1][1])
                cells = [f"{settings['parent']}, {settings['method']}, seed {settings['seed']}", baseline]
                rows.append([*cells, f"{mine['kl']:.3f} / {its['kl']:.3f}", *_worth(mine, tokens, settings["tokens"])])
    head = ["parent", "against", "KL healed, ours / theirs", "ours is there after", "search / healing saved"]
    return table(head, rows)


def first_at(curve: Iterable[tuple[int, float]], target: float) -> int | None:
    """Tokens after which the KL on the way is ``target`` or less."""
    return next((int(tokens) for tokens, kl in curve if kl <= target), None)


def _worth(mine: dict[str, Any], tokens: int | None, budget: int) -> list[str]:
    if tokens is None or tokens >= budget:
        return ["never" if tokens is None else f"{tokens:,}", "nothing saved"]
    spared = mine["seconds"] * (budget - tokens) / budget
    return [f"{tokens:,} of {budget:,} tokens", f"{mine['search_seconds'] / spared:.1f}"]


def ranks(lines: list[Line]) -> str:
    """Kendall's tau between stages, over all searches."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for line in lines:
        for a in line["result"]["agreements"]:
            found.setdefault((line["settings"]["method"], a["before"], a["after"]), []).append(a["tau"])
    rows = [[f"{m}: {a} / {b}", f"{statistics.mean(t):+.2f}", str(len(t))] for (m, a, b), t in sorted(found.items())]
    return table(["stages", "mean tau", "searches"], rows)


def targets(lines: list[Line]) -> str:
    rows = []
    for line in lines:
        s, r = line["settings"], line["result"]
        got = latency.ratio(r)
        cells = [f"{r['asked']:.2f}", f"{r['planned']:.3f}", f"{got:.3f}", f"{100 * (got / r['asked'] - 1):+.1f}%"]
        rows.append([f"{s['parent']}, seed {s['seed']}", *cells])
    return table(["parent", "asked", "by the table", "measured in turns", "off"], rows)


def sections(results: Path) -> str:
    found, timed = read(results / shapes.FILE), read(results / latency.FILE)
    parts = [("Searched shapes at equal parameters and equal healing", compared(found) if found else "not run")]
    if found:
        parts += [("What the search costs and saves", saved(found)), ("Do stages agree?", ranks(found))]
    parts.append(("Latency asked for and got", targets(timed) if timed else "not run"))
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in parts)


if __name__ == "__main__":
    show("benchmarks.search.table", __doc__, {"search": sections}, Path(__file__).with_name("README.md"))
