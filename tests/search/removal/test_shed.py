"""The verb: from text to a plan to a checkpoint, resumed where it was interrupted, clear about what it cannot do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import secateur as sc
from secateur.cli import run
from secateur.errors import UsageError
from secateur.evaluation.equality import load_strict
from secateur.model import open_model
from secateur.pruning.plan import load_plan
from secateur.pruning.removed import LAYER, Unit
from secateur.search.removal.journal import Journal
from secateur.search.removal.masked import Masked
from tests.contract.harness import Parent, build, ids
from tests.data.tokenizers_ import byte_tokenizer

SMALL = ["--samples", "2", "--length", "16", "--batch", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny hybrid with a tokenizer, and text."""
    folder = tmp_path_factory.mktemp("shed")
    parent = build("nemotron_h", folder / "parent", vocab_size=258)
    byte_tokenizer().save_pretrained(parent.folder)
    (folder / "text.txt").write_text("the cat sat on the mat and looked at the dog. " * 20)
    return folder


def shed(folder: Path, *options: str) -> int:
    return run(["shed", str(folder / "parent"), "--text", str(folder / "text.txt"), *SMALL, *options])


def test_from_text_to_a_checkpoint(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = str(tmp_path / "plan.json")
    assert shed(folder, "--stages", "mamba & mlp:1 + scan:1", "--out", plan) == 0
    told = capsys.readouterr()
    assert "1 gone, last" in told.err and "removed:" in told.out
    made = json.loads(Path(plan).read_text())
    assert len(made["layers"]) == 5 and len(made["removed"]) == 1 and "secateur shed" in made["notes"][0]
    assert run(["prune", str(folder / "parent"), "--plan", plan, "--out", str(tmp_path / "child")]) == 0
    assert "stored as constants" in " ".join(capsys.readouterr().out.split())
    assert run(["verify", str(folder / "parent"), str(tmp_path / "child")]) == 0
    with open_model(folder / "parent") as model, torch.no_grad():
        units = [Unit(i, LAYER) for i in range(6) if i not in made["layers"]]
        read = load_plan(Path(plan), model)
        from secateur.pruning.removed import parse_unit

        want = Masked(model, ids()).logits(0, [*units, *(parse_unit(u, model.anatomy) for u in read.removed)])
        got = load_strict(tmp_path / "child")(ids(), use_cache=False).logits
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)


def test_from_python_it_is_the_same(folder: Path, tmp_path: Path) -> None:
    assert shed(folder, "--stages", "layer:2", "--out", str(tmp_path / "verb.json")) == 0
    given = {"samples": 2, "length": 16, "batch": 1, "out": tmp_path / "call.json"}
    plan, found = sc.shed(folder / "parent", folder / "text.txt", "layer:2", **given)
    assert (tmp_path / "call.json").read_text() == (tmp_path / "verb.json").read_text()
    assert len(plan.layers) == 4 and len(found.removal) == 2
    with pytest.raises(UsageError, match="its folder does not exist"):
        sc.shed(folder / "parent", folder / "text.txt", "layer:2", out=tmp_path / "no" / "plan.json")


@pytest.mark.parametrize("method", ["one-shot", "evopress", "bonsai", "exhaustive"])
def test_methods(method: str, folder: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    options = ["--stages", "layer:2", "--method", method, "--by", "kl", "--out", str(plan)]
    assert shed(folder, *options) == 0
    first = plan.read_text()
    assert shed(folder, *options) == 0 and plan.read_text() == first
    assert len(json.loads(first)["layers"]) == 4


def test_an_interrupted_search_measures_nothing_twice(folder: Path, tmp_path: Path) -> None:
    book, plan = tmp_path / "journal.jsonl", tmp_path / "plan.json"
    options = ["--stages", "layer & scan:3", "--out", str(plan), "--journal", str(book)]
    assert shed(folder, *options) == 0
    lines, first = book.read_text().splitlines(), plan.read_text()
    book.write_text("\n".join(lines[:9]) + '\n{"batch": 0, "remo')
    assert shed(folder, *options) == 0
    again = book.read_text().splitlines()
    assert plan.read_text() == first and len(again) == len(lines) + 1
    assert again[:9] == lines[:9] and sorted(again[10:]) == sorted(lines[9:])
    with open_model(folder / "parent") as model, pytest.raises(UsageError, match="other text"):
        Journal(book, model, [ids()])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--stages", "gate:2"], "nothing called 'gate'"),
        (["--stages", "layer"], "expected a pool"),
        (["--stages", "layer:99"], "the pool has 6"),
        (["--stages", "layer:6"], "nothing more can be removed"),
        (["--stages", "layer:1", "--by", "taste"], "no measure 'taste'"),
        (["--stages", "layer:1", "--method", "guess"], "method 'guess' is unknown"),
        (["--stages", "layer:1 + scan:1", "--method", "evopress"], "only greedy goes in stages"),
        (["--stages", "channels:1", "--group", "9999"], "at least one group must stay"),
    ],
)
def test_what_cannot_be_done_is_said(
    options: list[str], why: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shed(folder, *options, "--out", str(tmp_path / "plan.json")) == 2
    assert why in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "plan.json").exists()


def test_a_plan_with_units_that_are_not_there_is_refused(parents: dict[str, Parent], tmp_path: Path) -> None:
    with open_model(parents["llama"].folder) as model:
        from secateur.pruning.plan import make_plan

        made = make_plan(model, removed=["ffn 0"]).to_json()
        for removed in ("ffn 0", ["scan 0"], [3]):
            (tmp_path / "plan.json").write_text(json.dumps({**made, "removed": removed}))
            with pytest.raises(UsageError):
                load_plan(tmp_path / "plan.json", model)
