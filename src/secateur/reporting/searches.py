"""What the page says of a search: what was asked and found, how the stages agreed, and every candidate as a point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateur.reporting import words
from secateur.search.record import ENDING, beside

#: Points of one search that the page carries; the fronts and the winner always.
MOST = 1500


def is_search(path: Path) -> bool:
    """Whether a source is the record of a search, or a plan with one beside it."""
    return path.name.endswith(ENDING) or (path.suffix == ".json" and beside(path).is_file())


def told(record: dict[str, Any]) -> dict[str, Any]:
    """The part that needs no chart."""
    winner = record["winner"]
    lines = [("found", winner["text"]), ("ranked at", _stage(winner["stage"]["name"], winner["stage"]["heal"]))]
    lines.append(("KL from the parent", f"{words.number(winner['kl'])} nats per token"))
    for limit in record["limits"]:
        used = winner["costs"][limit["resource"]]
        share = f"{words.percent(used / limit['parent'], 1)} of the parent"
        lines.append((limit["resource"], f"{share}, {words.percent(used / limit['amount'], 1)} of the limit"))
    lines.append(("measured", f"{record['measured']:,} scores in {record['spent_seconds']:,.0f} s"))
    return {
        "name": record["strategy"],
        "lines": lines,
        "agreements": [{**a, "tau": f"{a['tau']:+.2f}"} for a in record["agreements"]],
        "notes": record["notes"],
    }


def chart(record: dict[str, Any]) -> dict[str, Any]:
    """Points for the chart: one per measurement, with its level and whether it is on the level's front."""
    winner = record["winner"]
    points = [p for p in record["points"] if p["kl"] is not None]
    points.sort(key=lambda p: (not p["front"], p["text"] != winner["text"]))
    return {
        "name": record["strategy"],
        "winner": winner["text"],
        "resources": list(dict.fromkeys(["params", *(limit["resource"] for limit in record["limits"])])),
        "limits": {limit["resource"]: limit["amount"] for limit in record["limits"]},
        "points": [
            {"text": p["text"], "level": _stage(p["stage"], p["heal"]), "kl": p["kl"], "costs": p["costs"],
             "front": p["front"]}
            for p in points[:MOST]
        ],
    }  # fmt: skip


def _stage(name: str, heal: int) -> str:
    return f"{name}, after {heal:,} tokens" if heal else name


__all__ = ["chart", "is_search", "told"]
