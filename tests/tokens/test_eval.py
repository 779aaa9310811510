"""`secateur eval --reduce-tokens`: reduced prompts beside pruned checkpoints, and of pruned checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import secateur
from secateur.cli import run
from secateur.data import load_tokenizer
from secateur.evaluation.equality import load_strict
from secateur.evaluation.load import Place
from secateur.evaluation.speed import SpeedSettings, measure
from secateur.evaluation.windows import IGNORE, make_windows, read_sources
from secateur.tokens.runtime import reduce_tokens
from secateur.tokens.settings import TokenReduction
from tests.cli.command import refused
from tests.evaluate.models import TEXT, hybrid

WINDOW, STRIDE = 64, 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("reduced")
    hybrid(found / "parent")
    secateur.prune(found / "parent", {"ffn": 24, "ssm_heads": 4}, found / "child")
    (found / "text.txt").write_text(TEXT, encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    said = (
        "eval", folder / "child", "--parent", folder / "parent", "--text", folder / "text.txt", "--window", WINDOW,
        "--reduce-tokens", "0.8", "--samples", "1", "--limit", "2kB", "--out", path,
    )  # fmt: skip
    assert run([str(a) for a in said]) == 0
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def loss_by_hand(folder: Path, text: Path, reduction: TokenReduction | None) -> float:
    """Window by window, in one pass each, the tokens before the first target as the prompt."""
    network, total, count = load_strict(folder), 0.0, 0
    sources = read_sources([text], 2000)
    for window in make_windows(load_tokenizer(folder), sources, WINDOW, STRIDE).windows:
        first = int((window.targets != IGNORE).int().argmax())
        ids, targets = window.inputs[None], window.targets[first:]
        with torch.no_grad():
            if reduction is None:
                logits = network(ids, use_cache=False).logits[0]
            else:
                with reduce_tokens(network, reduction, prompt=first):
                    logits = network(ids, use_cache=False).logits[0]
        total += float(torch.nn.functional.cross_entropy(logits[-len(targets) :], targets, reduction="sum"))
        count += len(targets)
    return total / count


def test_every_model_stands_twice_and_the_numbers_are_those_of_a_plain_loop(
    folder: Path, results: dict[str, Any]
) -> None:
    models = results["models"]
    assert [m["role"] for m in models] == ["parent", "child", "reduced", "reduced"]
    assert results["settings"]["stride"] == STRIDE
    assert [m["reduction"] is not None for m in models] == [False, False, True, True]
    asked = TokenReduction.from_json(models[2]["reduction"])
    assert asked == TokenReduction(flops=0.8)
    for m, name, reduction in zip(
        models, ("parent", "child", "parent", "child"), (None, None, asked, asked), strict=True
    ):
        want = loss_by_hand(folder / name, folder / "text.txt", reduction)
        assert m["text"]["total"]["loss"] == pytest.approx(want, abs=2e-5)
    losses = [m["text"]["total"]["loss"] for m in models]
    assert len(set(losses)) == 4
    assert models[2]["agreement"]["kl"] > 0 and models[2]["size"] == models[0]["size"]


def test_speeds_are_those_of_reduced_prompts(folder: Path, results: dict[str, Any]) -> None:
    """Both processes run; what they report is summed up as for any other model. Times are never asserted."""
    settings = SpeedSettings(rounds=1, prompt=64, new=2)
    with secateur.open(folder / "child") as child:
        found = measure([child, child], Place(), settings, reductions=[None, TokenReduction(flops=0.8)])
    assert all(m["prefill_tokens_per_s"]["median"] > 0 for m in found)
    assert all(len(m["samples"]) == 1 for m in results["models"])


def test_the_report_shows_all_of_them(folder: Path, results: dict[str, Any]) -> None:
    page = folder / "page.html"
    found = secateur.report(folder / "results.json", out=page)
    names = [m["name"] for m in found.models]
    assert names == [m["name"] for m in results["models"]] and len(set(names)) == 4
    text = page.read_text(encoding="utf-8")
    assert "prompts at 80% (utrc)" in text and "32 tokens before what is scored" in text


def test_what_cannot_be_measured_is_refused(folder: Path) -> None:
    said = ("eval", folder / "child", "--text", folder / "text.txt", "--reduce-tokens")
    refused(*said, "0.8", "--window", "64", "--stride", "64", says="--stride 32")
    refused(*said, "1.5", says="at most 1")
    refused(*said, "0.2", "--window", "64", says="larger share")
