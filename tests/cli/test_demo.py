"""``secateur demo`` as a new user runs it, on very little text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import command
from .command import done, refused, tree


@pytest.mark.slow
def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "DEADLINE_S", 900)  # seven steps
    folder = tmp_path / "demo"
    shown = done("demo", "--quick", "--out", folder).out
    models = json.loads((folder / "numbers.json").read_text())["models"]
    assert [m["name"] for m in models] == ["parent", "cut", "repaired", "healed"]
    summary = shown[shown.index("what was lost") :]
    for m in models:
        assert f"{m['text']['total']['bits_per_byte']:.4f}" in summary
        assert f"{m['size']['disk_bytes']:,}" in summary
    share = models[1]["size"]["non_embedding"] / models[0]["size"]["non_embedding"]
    assert 0.45 <= share <= 0.5
    assert models[1]["agreement"]["top1"] < 1
    assert (folder / "report.html").stat().st_size > 10_000

    before = tree(folder)
    again = done("demo", "--quick", "--out", folder).out
    assert again.count("skipped: its result is there") == 7 and "runs:" not in again
    assert tree(folder) == before
    assert again[again.index("what was lost") :].split("in all")[0] == summary.split("in all")[0]

    kept = json.loads((folder / "cut" / "secateur.json").read_text())["shape"]
    groups, heads = kept["ssm_groups"], kept["ssm_heads"]
    assert groups["before"] == groups["after"] and heads["after"] % groups["after"] == 0
    done("verify", folder / "parent", folder / "cut")


def test_edited_recipes_are_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("work: .\n")
    refused("demo", "--out", folder, says="not the demo's own recipe")
    assert tree(folder).keys() == {"recipe.yaml"}
