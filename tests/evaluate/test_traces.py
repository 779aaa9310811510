"""What other steps leave behind, whole, missing or broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from secateur.errors import UsageError
from secateur.evaluation.traces import POINTS, healing, importance, record, thin


def test_what_is_missing_is_none(tmp_path: Path) -> None:
    assert record(tmp_path) is None
    assert healing(tmp_path / "metrics.jsonl") is None
    assert importance(tmp_path / "importance.json") is None


def test_a_long_curve_is_thinned_with_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": i, "loss": 1 / (i + 1), "note": "x"}) + "\n" for i in range(5000)))
    found = healing(path)
    assert found is not None and len(found) == POINTS
    assert (found[0]["step"], found[-1]["step"]) == (0, 4999)
    assert set(found[0]) == {"step", "loss"}
    assert thin([1, 2, 3]) == [1, 2, 3]


def test_held_out_losses_survive_the_thinning(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": 0, "held_out": 5.0}]
    lines += [{"step": i, "loss": 1.0} | ({"held_out": 1 / i} if i % 1000 == 0 else {}) for i in range(1, 5001)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = healing(path) or []
    assert [line["step"] for line in found if "held_out" in line] == [0, 1000, 2000, 3000, 4000, 5000]
    assert [line["step"] for line in found] == sorted(line["step"] for line in found) and len(found) == POINTS + 6


def test_a_killed_run_leaves_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert healing(path) == [{"step": 1, "loss": 2.0}]
    path.write_text('{"step": 1, "lo\n{"step": 2, "loss": 1.0}\n')
    with pytest.raises(UsageError, match=r"metrics.jsonl:1"):
        healing(path)


def test_importance_is_ranked_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "importance.json"
    curve = {"axis": "ffn", "scope": "3", "scores": [1, 5.0, 3]}
    path.write_text(json.dumps({"secateur_importance": 1, "criterion": "activation", "curves": [curve]}))
    found = importance(path)
    assert found is not None and found["criterion"] == "activation"
    assert [p["score"] for p in found["curves"][0]["points"]] == [5.0, 3.0, 1.0]
    for broken in (
        [],
        {"secateur_importance": 2, "curves": []},
        {"secateur_importance": 1, "curves": {}},
        {"secateur_importance": 1, "curves": [{"axis": "ffn", "scores": ["a"]}]},
        {"secateur_importance": 1, "curves": [{"scores": [1]}]},
    ):
        path.write_text(json.dumps(broken))
        with pytest.raises(UsageError, match=r"importance\.json"):
            importance(path)


def test_the_record_comes_without_the_kept_units(tmp_path: Path) -> None:
    cut = {"step": "prune", "kept": {"f": {"0": "0-3"}}}
    (tmp_path / "secateur.json").write_text(json.dumps({"step": "distill", "before": cut}))
    assert record(tmp_path) == {"step": "distill", "before": {"step": "prune"}}
