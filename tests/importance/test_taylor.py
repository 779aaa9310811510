"""First-order Taylor scores against finite differences of the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from secateur.importance import MEASURED, taylor
from secateur.importance.whole import next_token_loss
from secateur.model import open_model
from tests.contract.harness import Parent, double_precision, ids, load, logits, write
from tests.contract.test_criteria import _matrices, _only

from .plain import measure

UNITS = {
    "llama": [("f", "1", (), 7), ("k", "0", (), 1), ("d", "", (), 5)],
    "nemotron_h": [
        ("h", "0", (1,), 4),
        ("f", "1", (), 3),
        ("n", "3", (0,), 6),
        ("E", "4", (), 1),
        ("fe", "4", (2,), 5),
    ],
    "granitemoehybrid": [("fe", "1", (2,), 5), ("E", "0", (), 3)],
    "gpt2": [("f", "0", (), 9)],
}


def _loss(parent: Parent, folder: Path, tensors: dict[str, torch.Tensor], tokens: torch.Tensor) -> float:
    with double_precision():
        return float(next_token_loss(logits(load(write(folder, parent.anatomy.raw, tensors)), tokens), tokens))


@pytest.mark.parametrize("name", UNITS)
def test_scores_equal_finite_differences(name: str, parents: dict[str, Parent], tmp_path: Path) -> None:
    """Scale a unit's matrix entries by 1 + eps and 1 - eps."""
    parent, tokens, eps = parents[name], ids()[:1], 1e-5
    with double_precision(), open_model(parent.folder) as model:
        found = taylor.measure(model, tokens, dtype=torch.float64)
    for axis, scope, outer, unit in UNITS[name]:
        losses = []
        for sign in (1, -1):
            tensors = dict(parent.tensors)
            for decl in _matrices(parent.anatomy, axis, scope):
                part = _only(parent.anatomy, decl, tensors[decl.name], axis, outer, unit)
                tensors[decl.name] = tensors[decl.name] + sign * eps * part
            losses.append(_loss(parent, tmp_path / f"{axis}{sign}", tensors, tokens))
        want = abs(losses[0] - losses[1]) / (2 * eps)
        assert want > 1e-6, "a unit without effect tests nothing"
        got = float(found[f"{scope}/taylor/{axis}/effect"][(*outer, unit)])
        assert got == pytest.approx(want, rel=1e-4), (axis, scope, unit)


def test_batches_are_averaged_without_cancelling(parents: dict[str, Parent]) -> None:
    with double_precision(), open_model(parents["llama"].folder) as model:
        both, first, second = (taylor.measure(model, w, dtype=torch.float64) for w in (ids(), ids()[:1], ids()[1:]))
    for key, value in both.items():
        assert torch.allclose(value, (first[key] + second[key]) / 2, rtol=1e-6, atol=1e-12), key


def test_the_criterion_reads_what_was_measured(parents: dict[str, Parent]) -> None:
    parent = parents["llama"]
    with open_model(parent.folder) as model:
        stats = measure(parent.folder).adding(taylor.measure(model, ids()))
    got = MEASURED["taylor"](parent.anatomy, stats, ["f"], parent.anatomy.sizes, parent.tensors.__getitem__)
    assert np.allclose(got["f", "1"], stats.tensors["1/taylor/f/effect"].numpy())
