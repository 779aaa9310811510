"""MoDeGPT's three modules against least squares, singular values and enumeration, in float64."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from secateur.layerwise.factorize.factors import root_of, tail
from secateur.layerwise.factorize.modegpt.cr import channel_scores, kept_channels
from secateur.layerwise.factorize.modegpt.nystrom import compensated, leverage
from secateur.layerwise.factorize.modegpt.vo import joint
from secateur.layerwise.factorize.svd_llm import svd_llm


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def neurons(seed: int = 0, tokens: int = 400, f: int = 20) -> tuple[Tensor, Tensor]:
    """(down projection (d, f), activations (tokens, f)) behind a ReLU."""
    return rand(9, f, seed=seed), (rand(tokens, f, seed=seed + 1) @ rand(f, f, seed=seed + 2)).relu()


def test_nystrom_is_least_squares_on_the_kept_neurons_and_one_shot_obs() -> None:
    down, h = neurons()
    gram = h.T @ h
    kept = leverage(gram).argsort(descending=True)[:12].sort().values
    got = compensated(down, gram, kept)
    want = torch.linalg.lstsq(h[:, kept], h @ down.T).solution.T
    assert torch.allclose(got, want, atol=1e-8)
    inverse = torch.linalg.inv(gram)
    gone = torch.tensor([j for j in range(20) if j not in kept.tolist()])
    obs = down - down[:, gone] @ torch.linalg.inv(inverse[gone][:, gone]) @ inverse[gone]
    assert torch.allclose(got, obs[:, kept], atol=1e-7)
    assert float((h @ down.T - h[:, kept] @ got.T).norm()) < float((h @ down.T - h[:, kept] @ down[:, kept].T).norm())


def test_leverage_by_its_definition() -> None:
    _, h = neurons(3)
    gram = h.T @ h
    lam = 1e-2 * float(gram.diagonal().mean())
    want = (gram @ torch.linalg.inv(gram + lam * torch.eye(20, dtype=torch.float64))).diagonal()
    assert torch.allclose(leverage(gram), want, atol=1e-12)
    assert bool(((leverage(gram) >= 0) & (leverage(gram) <= 1)).all())


def test_nystrom_with_twins_dead_neurons_and_no_tokens() -> None:
    """A neuron whose twin goes is made up for without error."""
    down, h = neurons(4)
    h[:, 7], h[:, 2] = h[:, 6], 0
    kept = torch.tensor([j for j in range(20) if j not in (2, 7)])
    got = compensated(down, h.T @ h, kept)
    assert torch.allclose(h[:, kept] @ got.T, h @ down.T, atol=1e-6)
    both = torch.tensor([2, 6, 7, 9])
    assert bool(torch.isfinite(compensated(down, h.T @ h, both)).all())
    nothing = torch.zeros(20, 20)
    assert torch.equal(compensated(down, nothing, both), down[:, both])
    assert torch.equal(leverage(nothing), torch.zeros(20, dtype=torch.float64))


def test_shared_values_lose_the_tail_of_singular_values() -> None:
    d, e, r, keep = 16, 6, 3, 4
    x, values, outputs = rand(200, d, seed=1), rand(e, d, seed=2), rand(r, d, e, seed=3)
    new_values, new_outputs, _ = joint(values, outputs, root_of(x.T @ x), keep)
    stacked, new = outputs.reshape(r * d, e), new_outputs.reshape(r * d, keep)
    whole = x @ (stacked @ values).T
    error = float((whole - x @ (new @ new_values).T).norm())
    assert error == pytest.approx(tail(torch.linalg.svdvals(whole), keep), rel=1e-10)
    assert torch.allclose(new @ new_values, svd_llm(stacked @ values, x.T @ x, keep).product, atol=1e-10)


def test_all_value_channels_are_exact() -> None:
    x, values, outputs = rand(200, 16, seed=1), rand(6, 16, seed=2), rand(2, 16, 6, seed=3)
    new_values, new_outputs, _ = joint(values, outputs, root_of(x.T @ x), 6)
    for old, new in zip(outputs, new_outputs, strict=True):
        assert torch.allclose(new @ new_values, old @ values, atol=1e-10)


def test_cr_scores_are_the_lengths_of_columns_of_roots() -> None:
    q, k = rand(50, 8, seed=1), rand(50, 8, seed=2) * torch.linspace(0.1, 2, 8, dtype=torch.float64)
    lengths = root_of(q.T @ q).root.norm(dim=0) * root_of(k.T @ k).root.norm(dim=0)
    got = channel_scores(q.square().sum(0)[None], k.square().sum(0), pairs=False)
    assert torch.allclose(got, lengths, atol=1e-9)
    assert kept_channels(got, 3, pairs=False).tolist() == sorted(lengths.argsort(descending=True)[:3].tolist())


def test_cr_keeps_the_best_channels_where_they_are_uncorrelated() -> None:
    """Channels with energies that differ widely: the set kept is the best of all sets for q k^T."""
    sizes = torch.tensor([8.0, 0.2, 3.0, 0.5, 5.0, 0.1], dtype=torch.float64)
    q, k = rand(300, 6, seed=5) * sizes, rand(300, 6, seed=6)
    kept = kept_channels(channel_scores(q.square().sum(0)[None], k.square().sum(0), pairs=False), 3, pairs=False)

    def error(chosen: tuple[int, ...]) -> float:
        return float((q @ k.T - q[:, chosen] @ k[:, chosen].T).norm())

    assert tuple(kept.tolist()) == min(itertools.combinations(range(6), 3), key=error)


def test_rotary_pairs_stay_together_and_score_alike_before_and_after_the_turn() -> None:
    q, k, half = rand(60, 8, seed=7), rand(60, 8, seed=8), 4
    angle = rand(60, half, seed=9)

    def turned(a: Tensor) -> Tensor:
        x, y = a.chunk(2, dim=-1)
        return torch.cat([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()], -1)

    def scores(a: Tensor, b: Tensor) -> Tensor:
        return channel_scores(a.square().sum(0)[None], b.square().sum(0), pairs=True)

    assert torch.allclose(scores(q, k), scores(turned(q), turned(k)), atol=1e-9)
    kept = kept_channels(scores(q, k), 5, pairs=True)
    assert len(kept) == 4 and {(i + half) % 8 for i in kept.tolist()} == set(kept.tolist())
