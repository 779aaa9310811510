"""The endurance benchmark at toy size: every fault, each followed by the exact curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks.scale import endurance
from benchmarks.scale.endurance import Bench, Watch, verdict

from tests.train import tiny


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    parent = tiny.parent(tmp_path / "parent", "nemotron_h")
    child, text = tiny.child(tmp_path / "child", parent, ffn=24), tiny.text(tmp_path)
    options = (
        "--tokens", str(56 * 4 * 32), "--length", "32", "--batch", "4", "--micro-batch", "2", "--lr", "3e-3",
        "--chunk", "24", "--top-k", "16", "--save-every", "2",
    )  # fmt: skip
    return Bench(child, parent, text, tmp_path, options, pause=0.01)


@pytest.mark.slow
@pytest.mark.long
def test_every_fault_is_survived_on_the_exact_curve(bench: Bench) -> None:
    told: list[str] = []
    result = endurance.run(bench, 56, 0, told.append)
    assert verdict(result) == [], (result, (bench.work / "hit.log").read_text()[-3000:])
    assert [f["fault"] for f in result["faults"]] == [*endurance.ORDER, "none"]
    assert all(f["state"] for f in result["faults"][:-1]), "a fault left nothing to go on from"
    assert result["steps"] == 56 and result["same_curve"] and result["same_weights"]
    log = (bench.work / "hit.log").read_text()
    assert "the last good state is" in log and "damaged, its sha256 is not the one written down" in " ".join(
        log.split()
    )


def test_a_verdict_can_fail() -> None:
    good: dict[str, Any] = {
        "faults": [{"fault": "nan", "step": 3, "code": 2, "as_wanted": True, "clear": True}, {"fault": "none"}],
        "same_curve": True, "same_weights": True, "growth": 1.0,
    }  # fmt: skip
    assert verdict(good) == []
    bad = {**good, "same_curve": False, "growth": 1.5}
    bad["faults"] = [{"fault": "nan", "step": 3, "code": 0, "as_wanted": False, "clear": False}, {"fault": "none"}]
    assert len(verdict(bad)) == 4


def test_growth_of_memory_is_seen() -> None:
    assert Watch([100] * 100).growth == 1.0
    assert Watch([100 + i for i in range(100)]).growth == pytest.approx(199 / 119)
    assert Watch([100] * 20).growth is None
