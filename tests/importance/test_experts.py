"""Expert statistics and scores against experts computed one by one from the tensors on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from secateur.calibration.stats import Stats
from secateur.importance import MEASURED
from secateur.importance.experts import starved
from tests.contract.harness import Parent, double_precision, ids, load, write

from .plain import blocks, measure

Routed = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _routed(parent: Parent, layer: int) -> Routed:
    """(tokens, choices, router weights) that the experts module of a plainly loaded model is called with."""
    model, seen = load(parent.folder), []
    block = blocks(model, parent.anatomy.n_layers)[layer]
    module = next(m for n, m in block.named_modules() if n.endswith("experts") and hasattr(m, "down_proj"))
    module.register_forward_pre_hook(lambda m, args: seen.append(args))
    with double_precision(), torch.no_grad():
        model(ids(), use_cache=False)
    return seen[0]


def _mixtral(parent: Parent, layer: int, e: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    prefix = f"{parent.anatomy.layer_prefix(layer)}block_sparse_moe.experts.{e}."
    w1, w2, w3 = (parent.tensors[f"{prefix}{w}.weight"] for w in ("w1", "w2", "w3"))
    inner = F.silu(x @ w1.T) * (x @ w3.T)
    return inner, inner @ w2.T


def _nemotron(parent: Parent, layer: int, e: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    prefix = f"{parent.anatomy.layer_prefix(layer)}mixer.experts.{e}."
    inner = F.relu(x @ parent.tensors[f"{prefix}up_proj.weight"].T) ** 2
    return inner, inner @ parent.tensors[f"{prefix}down_proj.weight"].T


def _gpt_oss(parent: Parent, layer: int, e: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    t = {n: parent.tensors[f"{parent.anatomy.layer_prefix(layer)}mlp.experts.{n}"][e] for n in (
        "gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias")}  # fmt: skip
    both = x @ t["gate_up_proj"] + t["gate_up_proj_bias"]
    gate, up = both[:, ::2].clamp(max=7), both[:, 1::2].clamp(-7, 7)
    inner = (up + 1) * gate * torch.sigmoid(1.702 * gate)
    return inner, inner @ t["down_proj"] + t["down_proj_bias"]


def _granite(parent: Parent, layer: int, e: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    prefix = f"{parent.anatomy.layer_prefix(layer)}block_sparse_moe."
    gate, up = (x @ parent.tensors[f"{prefix}input_linear.weight"][e].T).chunk(2, dim=-1)
    inner = F.silu(gate) * up
    return inner, inner @ parent.tensors[f"{prefix}output_linear.weight"][e].T


BY_HAND = {
    "mixtral": (_mixtral, 1),
    "nemotron_h": (_nemotron, 4),
    "gpt_oss": (_gpt_oss, 0),
    "granitemoehybrid": (_granite, 2),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_scores_equal_brute_force(name: str, parents: dict[str, Parent], measured: Callable[[str], Stats]) -> None:
    parent, (run, layer) = parents[name], BY_HAND[name]
    s, stats = parent.anatomy.sizes, measured(name)
    hidden, chosen, weights = _routed(parent, layer)
    samples, length = ids().shape
    tokens, norm = np.zeros(s["E"]), np.zeros(s["E"])
    read = np.zeros((s["E"], samples, length, s["fe"]))
    for t in range(len(hidden)):
        for slot in range(chosen.shape[1]):
            e = int(chosen[t, slot])
            inner, out = run(parent, layer, e, hidden[t : t + 1])
            tokens[e] += 1
            norm[e] += float(weights[t, slot] * out.norm())
            read[e, t // length, t % length] += (weights[t, slot] * inner[0]).numpy()
    assert np.allclose(stats.get(layer, "experts", "out", "tokens"), tokens)
    got = MEASURED["activation"](parent.anatomy, stats, ["E", "fe"], s, parent.tensors.__getitem__)
    assert np.allclose(got["E", str(layer)], norm / hidden.shape[0])
    assert np.allclose(got["fe", str(layer)], np.sqrt((np.abs(read).mean(2) ** 2).sum(1)))
    assert np.allclose(stats.get(layer, "experts", "in", "sum"), read.sum((1, 2)).ravel())
    assert np.allclose(stats.get(layer, "experts", "in", "sumsq"), (read**2).sum((1, 2)).ravel())


def test_a_shared_expert_is_scored_where_its_down_matrix_reads(
    parents: dict[str, Parent], measured: Callable[[str], Stats]
) -> None:
    parent, stats = parents["nemotron_h"], measured("nemotron_h")
    got = MEASURED["activation"](parent.anatomy, stats, ["fs"], parent.anatomy.sizes, parent.tensors.__getitem__)
    assert np.allclose(got["fs", "4"] ** 2, stats.get(4, "mixer.shared_experts.down_proj.weight", "in", "l2mean"))


def test_a_silenced_expert_and_a_silenced_channel_rank_last(
    parents: dict[str, Parent], measured: Callable[[str], Stats], tmp_path: Path
) -> None:
    parent, tensors = parents["mixtral"], {n: t.clone() for n, t in parents["mixtral"].tensors.items()}
    counts = measured("mixtral").get(0, "experts", "out", "tokens")
    assert counts is not None
    *_, second, busiest = np.argsort(counts)
    moe = parent.anatomy.layer_prefix(0) + "block_sparse_moe."
    tensors[f"{moe}experts.{busiest}.w2.weight"] *= 1e-6
    tensors[f"{moe}experts.{second}.w1.weight"][5] *= 1e-6
    stats = measure(write(tmp_path / "silent", parent.anatomy.raw, tensors))
    got = MEASURED["activation"](parent.anatomy, stats, ["E", "fe"], parent.anatomy.sizes, tensors.__getitem__)
    sent = np.flatnonzero(stats.get(0, "experts", "out", "tokens"))
    assert sent[got["E", "0"][sent].argmin()] == busiest
    assert got["fe", "0"][second].argmin() == 5


def test_starved_experts_are_named(parents: dict[str, Parent], tmp_path: Path) -> None:
    """A router that sends everything to experts 1 and 3."""
    parent, tensors = parents["gpt_oss"], {n: t.clone() for n, t in parents["gpt_oss"].tensors.items()}
    router = parent.anatomy.layer_prefix(0) + "mlp.router."
    tensors[f"{router}weight"].zero_()
    tensors[f"{router}bias"].zero_()
    tensors[f"{router}bias"][[1, 3]] = 5.0
    stats = measure(write(tmp_path / "starved", parent.anatomy.raw, tensors))
    assert starved(stats)[0] == [e for e in range(parent.anatomy.sizes["E"]) if e not in (1, 3)]
