"""The tables of searched shapes, from results made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.search import latency, shapes, table


def line(method: str, kl: float, curve: list[list[float]]) -> dict[str, Any]:
    result = {
        "cut_kl": 2 * kl, "kl": kl, "loss": 1 + kl, "parameters": 600.0, "search_seconds": 30.0, "seconds": 40.0,
        "curve": curve, "agreements": [{"before": "zero-shot", "after": "healed", "tau": 0.5, "count": 4}],
    }  # fmt: skip
    return {"settings": {"parent": "tiny", "method": method, "seed": 0, "tokens": 400}, "result": result}


def test_tables_say_what_a_search_costs_and_saves(tmp_path: Path) -> None:
    lines = [
        line("evolutionary", 0.1, [[100, 0.4], [200, 0.2], [300, 0.15], [400, 0.1]]),
        line("ten-largest", 0.2, [[200, 0.5], [400, 0.2]]),
        line("uniform", 0.05, [[200, 0.5], [400, 0.05]]),
    ]
    (tmp_path / shapes.FILE).write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    timed = {
        "settings": {"parent": "tiny", "seed": 0},
        "result": {"asked": 0.6, "planned": 0.59, "parent_seconds": [1, 2, 9], "child_seconds": [0.63, 0.8, 9]},
    }
    (tmp_path / latency.FILE).write_text(json.dumps(timed) + "\n")
    text = table.sections(tmp_path)
    # 30 seconds of search against 40 seconds x 200 of 400 tokens spared
    assert "| tiny, evolutionary, seed 0 | ten-largest | 0.100 / 0.200 | 200 of 400 tokens | 1.5 |" in text
    assert "| tiny, evolutionary, seed 0 | uniform | 0.100 / 0.050 | never | nothing saved |" in text
    assert "| evolutionary: zero-shot / healed | +0.50 | 1 |" in text
    assert "| tiny, seed 0 | 0.60 | 0.590 | 0.630 | +5.0% |" in text
    assert "not run" in table.sections(tmp_path / "empty")
