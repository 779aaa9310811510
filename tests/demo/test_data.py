"""The embedded default: what may be shipped, in the size it may have, and held-out text that is held out."""

from __future__ import annotations

from pathlib import Path

import torch

from secateur.demo.unpack import DATA, VARIANTS
from secateur.evaluation.equality import load_strict
from secateur.model import open_model
from secateur.recipe.document import read_document

MOST = 10 * 10**6
TEXTS = sorted((DATA / "text").rglob("*.txt"))


def paragraphs(folder: Path) -> set[str]:
    return {p.strip() for f in folder.glob("*.txt") for p in f.read_text(encoding="utf-8").split("\n\n")}


def test_parent() -> None:
    weights = DATA / "parent" / "model.safetensors"
    assert weights.stat().st_size <= MOST
    with open_model(DATA / "parent") as parent:
        sizes, kinds = parent.anatomy.sizes, {kind for block in parent.anatomy.kinds for kind in block}
        stored = {info.dtype for info in parent.weights.tensors.values()}
        counted = parent.anatomy.count()
    assert stored == {"BF16"}
    assert len(kinds) == 3, "a hybrid of Mamba-2, attention and MLP"
    assert sizes["g"] >= 4 and sizes["h"] >= 4, "groups and heads in a group, so that group-awareness matters"
    model = load_strict(DATA / "parent")
    assert sum(p.numel() for p in model.parameters()) == counted
    with torch.no_grad():
        assert torch.isfinite(model(torch.arange(16)[None]).logits).all()
    card = (DATA / "parent" / "README.md").read_text()
    assert "license: apache-2.0" in card and f"{counted:,}" in card


def test_texts_are_named_with_their_authors() -> None:
    sources = (DATA / "SOURCES.md").read_text(encoding="utf-8")
    for path in TEXTS:
        row = next(line for line in sources.splitlines() if line.startswith(f"| {path.name} |"))
        assert row.count("|") == 5 and "died" in row
    assert sources.count(".txt |") == len(TEXTS)
    assert sum(p.stat().st_size for p in TEXTS) < 2 * 10**6


def test_held_out_text_is_held_out() -> None:
    held, trained = paragraphs(DATA / "text" / "heldout"), paragraphs(DATA / "text" / "training")
    assert len(held) > 100 and len(trained) > 100
    shared = {p for p in held & trained if len(p) > 40}
    assert not shared


def test_recipes_take_the_same_road() -> None:
    full, quick = (read_document(DATA / name) for name in VARIANTS.values())
    assert [(e.name, e.verb) for e in full.steps] == [(e.name, e.verb) for e in quick.steps]
    assert [e.verb for e in full.steps] == ["calibrate", "plan", "prune", "repair", "distill", "eval", "report"]
    for a, b in zip(full.steps, quick.steps, strict=True):
        assert set(b.settings) - set(a.settings) <= {"limit"}
        assert set(a.settings) - set(b.settings) <= {"speed", "rounds"}
