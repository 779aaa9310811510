"""Tables of benchmarks/README.md from the results alone.

python -m benchmarks.tokens.table            prints the tables
python -m benchmarks.tokens.table --write    also puts them between the marks in benchmarks/README.md
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.common.tables import Line, pick, show, spread, table, values
from benchmarks.common.units import read
from benchmarks.tokens import clip, quality, schedules

SPEED = "tokens-speed.jsonl"
SHARES = (0.9, 0.8, 0.7)


def places(lines: Iterable[Line]) -> list[tuple[str, int]]:
    """(parent, prompt) in the order they were measured."""
    return list(dict.fromkeys((line["settings"]["parent"], line["settings"]["prompt"]) for line in lines))


def above(lines: Iterable[Line], key: str, full: str) -> list[float]:
    """How much the reduced model loses more than the full one on the same tokens."""
    return [line["result"][key] - line["result"][full] for line in lines]


def by_method(lines: list[Line], show: Callable[[list[Line]], str]) -> str:
    rows = []
    for parent, prompt in places(lines):
        here = pick(lines, parent=parent, prompt=prompt)
        for variant in quality.VARIANTS:
            cells = [show(pick(here, variant=variant, flops=share)) for share in SHARES]
            if any(cell != "-" for cell in cells):
                rows.append([f"{parent}, {prompt}: {variant}", *cells])
    return table(["parent, prompt: method", *(f"{share:.0%}" for share in SHARES)], rows)


def behind(lines: list[Line]) -> str:
    return by_method(lines, lambda found: spread(values(found, "kl"), 4))


def behind_loss(lines: list[Line]) -> str:
    return by_method(lines, lambda found: spread(above(found, "loss", "full"), 4))


def survivors(lines: list[Line]) -> str:
    return by_method(lines, lambda found: spread(above(found, "survivors", "survivors_full"), 3))


def orders(lines: list[Line]) -> str:
    """In how many (seed, share) pairs the first method is better than the second, by KL behind the prompt."""
    rows = []
    for parent, prompt in places(lines):
        here = pick(lines, parent=parent, prompt=prompt)
        row = [f"{parent}, {prompt}"]
        for one, other in (("utrc", "evit"), ("evit", "pumer"), ("utrc", "pumer"), ("utrc", "stride")):
            better = [
                a["result"]["kl"] < b["result"]["kl"]
                for a in pick(here, variant=one)
                for b in pick(here, variant=other, flops=a["settings"]["flops"], seed=a["settings"]["seed"])
            ]
            row.append(f"{sum(better)} of {len(better)}")
        rows.append(row)
    return table(["parent, prompt", "UTRC < EViT", "EViT < PuMer", "UTRC < PuMer", "UTRC < stride"], rows)


def clipping(lines: list[Line]) -> str:
    rows = []
    for parent, prompt in places(lines):
        here = pick(lines, parent=parent, prompt=prompt)
        for method in ("utrc", "importance"):
            cells = [spread(values(pick(here, variant=f"{method}, {measure}"), "kl"), 4) for measure in clip.MEASURES]
            rows.append([f"{parent}, {prompt}: {method}", *cells])
    return table(["KL at 80%", *clip.MEASURES], rows)


def calibrated(lines: list[Line]) -> str:
    rows = []
    searched = sorted({line["settings"]["windows"] for line in lines})
    for parent, prompt in places(lines):
        for share, windows in itertools.product(SHARES, searched):
            found = pick(lines, parent=parent, prompt=prompt, flops=share, windows=windows)
            if found:
                where = "; ".join(",".join(map(str, line["result"]["locations"])) for line in found)
                kls = [spread(values(found, key), 4) for key in ("paper_kl", "kl")]
                both = [spread(above(found, key, "full"), 4) for key in ("paper_loss", "loss")]
                rows.append([f"{parent}, {prompt}, {share:.0%}, {windows}", *kls, *both, where])
    return table(
        ["", "KL, paper's", "KL, calibrated", "loss rise, paper's", "loss rise, calibrated", "locations"], rows
    )


def time(lines: list[Line]) -> str:
    rows = []
    for name, method, share, length in _runs(pick(lines, what="time")):
        found = pick(lines, what="time", model=name, method=method, flops=share, length=length)
        promised = 1 / statistics.mean(values(found, "share"))
        rows.append(
            [
                f"{name}, {length}, {method}, {share:.0%}", f"{promised:.2f}x", _span(values(found, "speedup"), "x"),
                _span(values(found, "wall_speedup"), "x"), _span(values(found, "of_promised"), ""), str(len(found)),
            ]
        )  # fmt: skip
    head = ["model, tokens, method, share", "promised", "processor time", "wall time", "share of the promise", "pairs"]
    return table(head, rows)


def memory(lines: list[Line]) -> str:
    rows = []
    for what in ("peak prefill", "peak scoring"):
        for line in pick(lines, what=what):
            s, r = line["settings"], line["result"]
            mib = [f"{r[key] / 2**20:,.0f} MiB" for key in ("full_bytes", "reduced_bytes")]
            rows.append([f"{s['model']}, {s['length']}, {what[5:]}", *mib, f"{r['ratio']:.2f}"])
    return table(["model, tokens, pass", "full", "reduced", "ratio"], rows) if rows else "Not measured yet."


def _runs(lines: Iterable[Line]) -> list[tuple[Any, ...]]:
    keys = ("model", "method", "flops", "length")
    return list(dict.fromkeys(tuple(line["settings"][k] for k in keys) for line in lines))


def _span(found: list[float], unit: str) -> str:
    middle = f"{statistics.median(found):.2f}{unit}"
    return middle if len(found) == 1 else f"{middle} ({min(found):.2f}-{max(found):.2f})"


def sections(results: Path) -> str:
    lines = {name: read(results / name) for name in (quality.FILE, clip.FILE, schedules.FILE, SPEED)}
    parts: list[tuple[str, str, Callable[[list[Line]], str]]] = [
        ("Behind a reduced prompt: KL from the full model, nats", quality.FILE, behind),
        ("Behind a reduced prompt: rise of the loss, nats", quality.FILE, behind_loss),
        ("Who is better, by KL, over seeds and shares", quality.FILE, orders),
        ("On the survivors: rise of the loss at the same positions, nats", quality.FILE, survivors),
        ("Clipping", clip.FILE, clipping),
        ("The paper's schedule and a calibrated one", schedules.FILE, calibrated),
        ("Prefill time", SPEED, time),
        ("Peak memory", SPEED, memory),
    ]
    return "\n\n".join(f"### {title}\n\n{make(lines[file])}" for title, file, make in parts if lines[file])


if __name__ == "__main__":
    show("benchmarks.tokens.table", __doc__, {"tokens": sections})
