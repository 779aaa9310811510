"""Each loss against its definition written out, and what must hold of any."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from secateur.train.distribution import TopK, log_probs, lump, outcomes, top_k
from secateur.train.losses import (
    DIVERGENCES,
    HIDDEN,
    cross_entropy,
    forward_kl,
    hidden_cosine,
    hidden_mse,
    jensen_shannon,
    reverse_kl,
)
from secateur.train.losses.cross_entropy import IGNORE


def pair(seed: int = 0, n: int = 5, v: int = 11) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(log_probs(3 * torch.randn(n, v, generator=generator, dtype=torch.float64)) for _ in range(2))


def brute(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a)


def test_divergences_are_their_definitions() -> None:
    student, teacher = pair()
    for i in range(len(student)):
        q, p = student[i].exp().tolist(), teacher[i].exp().tolist()
        m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        want = {"kl": brute(p, q), "reverse-kl": brute(q, p), "js": (brute(p, m) + brute(q, m)) / 2}
        for name, divergence in DIVERGENCES.items():
            assert divergence(student, teacher)[i].item() == pytest.approx(want[name], rel=1e-12), name


@pytest.mark.parametrize("name", DIVERGENCES)
def test_equal_models_have_no_loss_and_no_gradient(name: str) -> None:
    logits = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    loss = DIVERGENCES[name](log_probs(logits), log_probs(logits).detach()).sum()
    loss.backward()
    assert abs(loss.item()) < 1e-12 and logits.grad.abs().max() < 1e-12
    other = DIVERGENCES[name](*pair(3))
    assert bool((other > 0).all())


@pytest.mark.parametrize("name", DIVERGENCES)
def test_certain_teachers_give_finite_gradients(name: str) -> None:
    logits = torch.randn(2, 5, requires_grad=True)
    teacher = torch.log_softmax(torch.tensor([[0.0, -200, -300, -400, -1e5], [0, 0, 0, 0, -math.inf]]), -1)
    DIVERGENCES[name](log_probs(logits), teacher).sum().backward()
    assert bool(torch.isfinite(logits.grad).all()) and bool((logits.grad != 0).any())


def test_direction_and_bounds() -> None:
    spread, sharp = (torch.tensor([row]).log() for row in ([0.5, 0.5 - 1e-6, 1e-6], [1 - 2e-6, 1e-6, 1e-6]))
    assert forward_kl(sharp, spread) > 5 > 1 > reverse_kl(sharp, spread)
    assert (jensen_shannon(*pair(1)) <= math.log(2)).all()
    assert torch.allclose(jensen_shannon(*pair(1)), jensen_shannon(*reversed(pair(1))))


def test_gradient_of_forward_kl_is_q_minus_p() -> None:
    logits, (_, teacher) = torch.randn(5, 11, dtype=torch.float64, requires_grad=True), pair()
    forward_kl(log_probs(logits), teacher).sum().backward()
    assert torch.allclose(logits.grad, logits.softmax(-1) - teacher.exp(), atol=1e-12)


def test_cross_entropy_ignores_positions_without_a_next_token() -> None:
    student, _ = pair()
    labels = torch.tensor([3, IGNORE, 0, 10, IGNORE])
    found = cross_entropy(student, labels)
    assert found.tolist() == pytest.approx([-float(x) for x in (student[0, 3], 0, student[2, 0], student[3, 10], 0)])


def test_hidden_losses() -> None:
    s, t = torch.randn(6, 4), torch.randn(6, 4)
    assert hidden_mse(s, t).item() == pytest.approx((((s - t) ** 2).sum() / (t**2).sum()).item())
    assert hidden_cosine(s, t).item() == pytest.approx(
        sum(1 - (a @ b / a.norm() / b.norm()).item() for a, b in zip(s, t, strict=True)) / 6, rel=1e-5
    )
    assert hidden_mse(torch.zeros_like(t), t).item() == pytest.approx(1)
    assert hidden_cosine(7 * t, t).abs() < 1e-6
    assert all(loss(t, t).abs() < 1e-6 for loss in HIDDEN.values())


def test_lumping_keeps_probability_and_lowers_divergence() -> None:
    student, teacher = pair(2, v=40)
    ids = teacher.topk(6).indices
    a, b = lump(student, ids), lump(teacher, ids)
    assert a.shape == (5, 7)
    assert torch.allclose(a.exp().sum(-1), torch.ones(5, dtype=torch.float64))
    rest = [sum(student[i, j].exp() for j in range(40) if j not in ids[i]).item() for i in range(5)]
    assert a[:, -1].exp().tolist() == pytest.approx(rest)
    for divergence in DIVERGENCES.values():
        assert bool((divergence(a, b) <= divergence(student, teacher)).all())


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_cache_of_the_whole_vocabulary_loses_nothing(name: str) -> None:
    logits, truth = torch.randn(5, 11, requires_grad=True), torch.randn(5, 11)
    top = top_k(truth, 11, temperature=2.0)
    found = DIVERGENCES[name](lump(log_probs(logits, 2.0), top.ids), outcomes(top, 11))
    want = DIVERGENCES[name](log_probs(logits, 2.0), log_probs(truth, 2.0))
    assert torch.allclose(found, want, atol=1e-6)
    found.sum().backward()
    assert bool(torch.isfinite(logits.grad).all())


def test_outcomes_are_normalised_after_rounding() -> None:
    top = top_k(torch.randn(3, 20), 4)
    rounded = TopK(top.ids, top.logp.half(), top.tail)
    assert torch.allclose(outcomes(rounded, 20).exp().sum(-1), torch.ones(3))
    assert torch.allclose(outcomes(rounded, 20)[:, :4], top.logp, atol=5e-3)
