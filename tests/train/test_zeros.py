"""Zeros of sparsified students stay zero; nobody else's do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import secateur as sc
from secateur.checkpoint import TensorStore
from secateur.evaluation.equality import load_strict
from secateur.train.zeros import Zeros, sparsified

from . import tiny


def zeros(folder: Path) -> dict[str, torch.Tensor]:
    """Masks of the tensors that the record calls sparsified."""
    names = sparsified(json.loads((folder / "secateur.json").read_text()))
    store = TensorStore.open(folder)
    return {n: store.read(n) == 0 for n in names}


@pytest.mark.parametrize("name", ["llama", "nemotron_h", "mixtral"])
def test_zeros_stay_and_the_rest_moves(name: str, tmp_path: Path) -> None:
    parent = tiny.parent(tmp_path / "parent", name, dtype=torch.bfloat16 if name == "nemotron_h" else torch.float32)
    sc.sparsify(parent, tmp_path / "sparse", method="magnitude", pattern="2:4")
    text = tiny.text(tmp_path)
    before = zeros(tmp_path / "sparse")
    assert before
    assert all(0.45 < float(m.double().mean()) < 0.55 for m in before.values())
    once = tiny.heal(tmp_path / "sparse", parent, text, tmp_path / "once", lr=1e-2, weight_decay=0.5)
    assert tiny.curve(once)[-1] < tiny.curve(once)[0]
    twice = tiny.heal(once, parent, text, tmp_path / "twice", tokens=2 * 128)  # the record of the first step is behind
    store = TensorStore.open(tmp_path / "sparse")
    for healed in (once, twice):
        after, moved = TensorStore.open(healed), 0
        for n, mask in before.items():
            w = after.read(n)
            assert not w[mask].any(), n
            moved += int((w != store.read(n)).sum())
        assert moved > 0.4 * sum(int((~m).sum()) for m in before.values())
    load_strict(twice)


def test_a_student_without_a_record_has_none(tmp_path: Path) -> None:
    parent = tiny.parent(tmp_path / "parent", "llama")
    assert sparsified(None) == frozenset()
    assert not len(Zeros(load_strict(parent), sparsified({"step": "prune", "before": None})))
