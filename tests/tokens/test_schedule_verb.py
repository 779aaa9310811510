"""`secateur schedule`: a schedule is found on text, kept beside the checkpoint, and read from there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import secateur as sc
from secateur.cli import run
from secateur.errors import UsageError
from secateur.tokens.settings import FILE, TokenReduction
from tests.cli.command import refused
from tests.evaluate.models import TEXT, hybrid

SMALL = ("--prompt", "32", "--after", "8", "--samples", "8", "--batch", "2", "--trials", "6")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("schedule")
    hybrid(found / "model")
    (found / "text.txt").write_text(TEXT, encoding="utf-8")
    return found


def test_found_saved_and_read_by_eval(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, text = str(folder / "model"), str(folder / "text.txt")
    assert run(["schedule", model, "--text", text, *SMALL, "--method", "stride", "--save"]) == 0
    said = capsys.readouterr().out
    assert "of 6 tried" in said and "published schedule" in said
    kept = TokenReduction.load(model)
    assert kept.method == "stride" and kept.flops == 0.8 and kept.locations
    out = folder / "results.json"
    given = ["--text", text, "--window", "64", "--limit", "1kB", "--reduce-tokens", model, "--out", str(out)]
    assert run(["eval", model, *given]) == 0
    reduced = [m["reduction"] for m in json.loads(out.read_text())["models"] if m["reduction"]]
    assert [TokenReduction.from_json(r) for r in reduced] == [kept]


def test_the_function_gives_what_the_search_found(folder: Path) -> None:
    found = sc.schedule(
        folder / "model", folder / "text.txt", flops=0.9, prompt=32, after=8, samples=8, batch=2, trials=4,
        dtype="float32", measure="mean",
    )  # fmt: skip
    assert found.asked.flops == 0.9 and found.asked.measure == "mean" and found.kl <= found.paper
    assert len(found.tried) == 4


@pytest.mark.parametrize("flops", ["1", "0", "1.5"])
def test_bad_shares(folder: Path, flops: str) -> None:
    before = sorted(p.name for p in (folder / "model").iterdir())
    model, text = str(folder / "model"), str(folder / "text.txt")
    assert flops in refused("schedule", model, "--text", text, "--flops", flops, "--save")
    assert sorted(p.name for p in (folder / "model").iterdir()) == before


def test_nothing_is_saved_for_a_model_without_a_folder(folder: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        sc.schedule(folder / "model" / "config.json", folder / "text.txt", save=True)
    (folder / "empty").mkdir()
    assert FILE in refused(
        "eval", str(folder / "model"), "--text", str(folder / "text.txt"), "--reduce-tokens", str(folder / "empty")
    )
