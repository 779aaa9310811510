"""The comparison with llm-compressor as tables, from benchmarks/results/peers.jsonl alone.

python -m benchmarks.peers.table            prints them
python -m benchmarks.peers.table --write    also puts them between their marks in benchmarks/README.md
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.tables import Line, show, table
from benchmarks.common.units import read
from benchmarks.peers.run import OURS, PEER

HEAD = ("model", "method", "loss", "peer's", "wall s", "peer's", "ratio", "processor s", "peer's", "ratio", "peak MiB",
        "peer's", "ratio", "MB on disk", "peer's")  # fmt: skip


def rows(lines: Sequence[Line]) -> Iterator[list[str]]:
    """One row for each model and method: medians over rounds; ratios within each round, ours to the peer's."""
    for model, method in dict.fromkeys((line["model"], line["method"]) for line in lines):
        ours, peer = (_rounds(lines, model, method, side) for side in (OURS, PEER))
        both = sorted(ours.keys() & peer.keys())
        row = [model, method, _loss(ours.values()), _loss(peer.values())]
        for what in ("wall_s", "cpu_s", "peak_mib"):
            row += [_median(ours.values(), what), _median(peer.values(), what)]
            ratios = [ours[i][what] / peer[i][what] for i in both]
            row.append(f"{statistics.median(ratios):.2f}" if ratios else "-")
        yield [*row, _median(ours.values(), "bytes", 1e6), _median(peer.values(), "bytes", 1e6)]


def _rounds(lines: Sequence[Line], model: str, method: str, side: str) -> dict[int, Line]:
    """Round -> the run, of those that ended well."""
    key = {"model": model, "method": method, "side": side, "code": 0}
    return {line["round"]: line for line in lines if key.items() <= line.items()}


def _loss(found: Any) -> str:
    """Nats per token, or why the result does not load."""
    said = [line["loss"] for line in found if "loss" in line]
    known = [s["loss"] for s in said if s.get("loss") is not None]
    if known:
        return f"{statistics.median(known):.4f}"
    return said[0].get("why", "-").partition(":")[0] if said else "-"


def _median(found: Any, what: str, unit: float = 1.0) -> str:
    values = [line[what] / unit for line in found if what in line]
    return f"{statistics.median(values):,.1f}" if values else "-"


def sections(results: Path) -> str:
    return table(HEAD, rows(read(results / "peers.jsonl")))


if __name__ == "__main__":
    show("benchmarks.peers.table", __doc__, {"peers": sections})
