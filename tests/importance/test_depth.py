"""Layers scored by their absence, against models from which they were really taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from secateur.importance import depth
from secateur.importance.whole import next_token_loss
from secateur.model import open_model
from secateur.pruning.cut import Cut
from secateur.pruning.keep import KeepSets
from tests.contract.harness import Parent, cut_pair, double_precision, ids, load, logits, write

from .plain import measure


def _without(parent: Parent, layer: int, folder: Path) -> torch.Tensor:
    """Logits of the child that lacks one layer."""
    kept = tuple(i for i in range(parent.anatomy.n_layers) if i != layer)
    child = cut_pair(parent, Cut(parent.anatomy, KeepSets(parent.anatomy), kept), folder, eps_to_zero=False)[1]
    return logits(child)


@pytest.mark.parametrize("name", ["llama", "nemotron_h"])
def test_one_shot_scores_equal_removal(name: str, parents: dict[str, Parent], tmp_path: Path) -> None:
    parent = parents[name]
    with double_precision(), open_model(parent.folder) as model:
        got = depth.measure(model, ids(), dtype=torch.float64)
    full = logits(load(parent.folder))
    for layer in range(parent.anatomy.n_layers):
        if name == "nemotron_h" and layer == 2:
            continue  # without its only attention layer there is no such model
        other = _without(parent, layer, tmp_path / str(layer))
        p, q = full.log_softmax(-1), other.log_softmax(-1)
        kl = float((p.exp() * (p - q)).sum(-1).mean())
        with double_precision():
            nll = float(next_token_loss(other, ids()) - next_token_loss(full, ids()))
        assert float(got["depth/one-shot/kl"][layer]) == pytest.approx(kl, rel=1e-8)
        assert float(got["depth/one-shot/nll"][layer]) == pytest.approx(nll, rel=1e-8)


def test_a_layer_that_writes_nothing_scores_zero(parents: dict[str, Parent], tmp_path: Path) -> None:
    parent, tensors = parents["nemotron_h"], {n: t.clone() for n, t in parents["nemotron_h"].tensors.items()}
    tensors[parent.anatomy.layer_prefix(3) + "mixer.out_proj.weight"].zero_()
    folder = write(tmp_path / "silent", parent.anatomy.raw, tensors)
    with double_precision(), open_model(folder) as model:
        skipped = depth.measure(model, ids(), dtype=torch.float64)
        stats = measure(folder).adding(skipped)
        for name in ("block-influence", "depth-kl", "depth-ppl"):
            scores = depth.layer_scores(model.anatomy, stats, name)
            assert abs(scores[3]) < 1e-12, name
            others = np.abs(np.delete(scores, 3))
            assert others.min() > 1e-6, name


def test_the_greedy_order_begins_with_brute_force(parents: dict[str, Parent]) -> None:
    """Step one drops the cheapest layer, step two the cheapest beside it; a forbidden layer never goes."""
    with double_precision(), open_model(parents["nemotron_h"].folder) as model:
        got = depth.measure(model, ids()[:1], iterative=True, allowed=lambda kept: 2 in kept, dtype=torch.float64)
        work = depth.Skipping(model, ids()[:1], dtype=torch.float64)
        for what, name in (("kl", "kl"), ("nll", "nll")):
            when = got[f"depth/iterative/{name}"]
            free = [i for i in range(6) if i != 2]
            first = min(free, key=lambda i: float(got[f"depth/one-shot/{name}"][i]))
            assert int(when.argmin()) == first
            rest = [i for i in free if i != first]
            costs = work.costs([(first, i) for i in rest])[what]
            assert int((when == 1).nonzero()) == rest[int(costs.argmin())]
            assert int(when.argmax()) == 2
            assert sorted(when.tolist()) == [0, 1, 2, 3, 4, 6]


def test_skipping_leaves_the_model_as_it_was(parents: dict[str, Parent]) -> None:
    with open_model(parents["llama"].folder) as model:
        work = depth.Skipping(model, ids())
        again = [work.costs([(), (0,)])["kl"] for _ in range(2)]
    assert float(again[0][0]) == 0 and torch.equal(*again)
