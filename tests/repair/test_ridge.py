"""Closed forms against brute force, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secateur.pruning.repair.evidence import Evidence
from secateur.pruning.repair.ridge import Sums, fitted_scale, solve, solve_rows


def problem(tokens: int = 60, inputs: int = 7, outputs: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(x, y, w0): correlated inputs far from zero mean, and a weight that is not the best one."""
    g = torch.Generator().manual_seed(seed)
    x = (
        torch.randn(tokens, inputs, generator=g, dtype=torch.float64)
        @ torch.randn(inputs, inputs, generator=g).double()
    )
    x += 3 * torch.randn(inputs, generator=g).double()
    w = torch.randn(outputs, inputs, generator=g).double()
    y = x @ w.T + 0.3 * torch.randn(tokens, outputs, generator=g).double() + 5
    return x, y, w + 0.5 * torch.randn(outputs, inputs, generator=g).double()


def summed(x: Tensor, y: Tensor, pieces: int = 3) -> Sums:
    sums = Sums.zeros(x.shape[1], y.shape[1])
    for a, b in zip(x.chunk(pieces), y.chunk(pieces), strict=True):
        sums.add(a[None], b[None])
    return sums


def brute(x: Tensor, y: Tensor, w0: Tensor, lam: float, with_bias: bool) -> tuple[Tensor, Tensor]:
    """lstsq of the augmented system [x 1; sqrt(lam) I 0] [W b]^T = [y; sqrt(lam) W0^T]: the bias is not pulled."""
    n = x.shape[1]
    ones = torch.full((len(x), 1), float(with_bias), dtype=torch.float64)
    top = torch.cat([x, ones], 1)
    low = torch.cat([lam**0.5 * torch.eye(n, dtype=torch.float64), torch.zeros(n, 1, dtype=torch.float64)], 1)
    columns = slice(None) if with_bias else slice(0, n)
    system, want = torch.cat([top, low])[:, columns], torch.cat([y, lam**0.5 * w0.T])
    found = torch.linalg.lstsq(system, want, driver="gelsd").solution
    return found[:n].T, found[n] if with_bias else torch.zeros(y.shape[1], dtype=torch.float64)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("damp", [1e-4, 1e-2, 1.0])
def test_ridge_equals_the_augmented_system(with_bias: bool, damp: float) -> None:
    x, y, w0 = problem()
    w, b = solve(summed(x, y), w0, damp=damp, with_bias=with_bias)
    inner = x - x.mean(0) if with_bias else x
    lam = damp * float(inner.square().sum(0).mean())
    want_w, want_b = brute(x, y, w0, lam, with_bias)
    assert torch.allclose(w, want_w, rtol=0, atol=1e-10)
    assert (b is not None) == with_bias
    assert b is None or torch.allclose(b, want_b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("damp", [0.0, 1e-13])
def test_without_damping_it_is_least_squares(damp: float) -> None:
    x, y, w0 = problem()
    w, _ = solve(summed(x, y), w0, damp=damp)
    assert torch.allclose(w, torch.linalg.lstsq(x, y).solution.T, atol=1e-8)


def test_heavy_damping_changes_nothing() -> None:
    x, y, w0 = problem()
    w, b = solve(summed(x, y), w0, damp=1e14, with_bias=True)
    assert torch.allclose(w, w0, atol=1e-10)
    assert b is not None and torch.allclose(b, (y - x @ w0.T).mean(0), atol=1e-8)


@pytest.mark.parametrize("damp", [0.0, 1e-2])
def test_directions_no_token_took_keep_their_weights(damp: float) -> None:
    """Fewer tokens than inputs and a dead channel: no failure, and nothing is made up."""
    x, y, w0 = problem(tokens=4)
    x[:, 2] = 0
    w, _ = solve(summed(x, y, 2), w0, damp=damp)
    assert torch.allclose(w[:, 2], w0[:, 2], atol=1e-9)
    _, _, v = torch.linalg.svd(x)
    unseen = v[4:]
    assert torch.allclose(w @ unseen.T, w0 @ unseen.T, atol=1e-7)
    assert damp or torch.allclose(x @ w.T, y, atol=1e-6)
    nothing, _ = solve(Sums.zeros(7, 4), w0, damp=damp)
    assert torch.equal(nothing, w0)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("damp", [0.0, 1e-4, 1.0])
@pytest.mark.parametrize("tokens", [4, 60])
def test_few_tokens_give_what_their_sums_give(with_bias: bool, damp: float, tokens: int) -> None:
    x, y, w0 = problem(tokens=tokens)
    x[:, 2] = 0
    want, want_bias = solve(summed(x, y, 2), w0, damp=damp, with_bias=with_bias)
    got, bias = solve_rows(x, y, w0, damp=damp, with_bias=with_bias)
    assert torch.allclose(got, want, rtol=0, atol=1e-8)
    assert (bias is None) == (want_bias is None)
    assert bias is None or want_bias is None or torch.allclose(bias, want_bias, rtol=0, atol=1e-8)


@pytest.mark.parametrize("tokens", [3, 60])
def test_evidence_is_rows_first_and_sums_then(tokens: int) -> None:
    """Seven inputs: up to three tokens are kept, then only sums are, of all of them."""
    x, y, w0 = problem(tokens=tokens)
    found = Evidence(7, 4)
    for a, b in zip(x, y, strict=True):
        found.add(a[None, None], b[None, None])
    assert found.finite and (found.sums is None) == (tokens == 3) == (len(found.rows) == 3)
    got, bias = found.solve(w0, damp=1e-2, with_bias=True)
    want, want_bias = solve(summed(x, y), w0, damp=1e-2, with_bias=True)
    assert not found.rows and torch.allclose(got, want, rtol=0, atol=1e-9)
    assert bias is not None and want_bias is not None and torch.allclose(bias, want_bias, rtol=0, atol=1e-9)


def test_error_from_sums_is_the_direct_error() -> None:
    x, y, w0 = problem()
    sums, bias = summed(x, y), torch.arange(4.0).double()
    assert sums.error(w0) == pytest.approx(float((y - x @ w0.T).square().sum()), rel=1e-10)
    assert sums.error(w0, bias) == pytest.approx(float((y - x @ w0.T - bias).square().sum()), rel=1e-10)
    best, b = solve(sums, w0, damp=0.0, with_bias=True)
    assert sums.error(best, b) < sums.error(w0, bias)


def test_the_bias_takes_up_the_mean_error_exactly() -> None:
    """FLAP's bias compensation is the case W = W0: b0 + W_removed mean(x_removed)."""
    x, y, w0 = problem()
    for damp in (1e-2, 1e12):
        w, b = solve(summed(x, y), w0, damp=damp, with_bias=True)
        assert b is not None and float((y - x @ w.T - b).mean(0).abs().max()) < 1e-10
    kept, whole = [0, 1, 3, 6], x @ w0.T
    sums = summed(x[:, kept], whole)
    _, b = solve(sums, w0[:, kept], damp=1e14, with_bias=True)
    gone = [2, 4, 5]
    assert b is not None and torch.allclose(b, w0[:, gone] @ x[:, gone].mean(0), atol=1e-8)


def test_half_precision_activations_are_summed_in_full() -> None:
    x, y, _ = problem(tokens=300)
    half = summed(x.bfloat16(), y.bfloat16())
    wide = summed(x.bfloat16().double(), y.bfloat16().double())
    assert torch.allclose(half.gram, wide.gram, rtol=1e-5, atol=1e-4) and half.count == 300


def test_fitted_scale_is_the_best_scalar() -> None:
    g = torch.Generator().manual_seed(3)
    pairs = [(torch.randn(5, 6, generator=g).double(), torch.randn(5, 6, generator=g).double()) for _ in range(3)]
    pairs = [(0.7 * got + 0.2 * want, got) for want, got in pairs]
    best = fitted_scale(pairs)

    def error(scale: float) -> float:
        return sum(float((want - scale * got).square().sum()) for want, got in pairs)

    assert all(error(best) < error(best + step) for step in (-1e-3, 1e-3, -0.1, 0.1))
    assert fitted_scale([(torch.ones(3), torch.zeros(3))]) == 1.0


def test_overflow_is_seen() -> None:
    sums = Sums.zeros(2, 2)
    sums.add(torch.tensor([[1.0, float("inf")]]), torch.ones(1, 2))
    assert not sums.finite
    for tokens in (1, 3):
        found = Evidence(2, 2)
        for _ in range(tokens):
            found.add(torch.tensor([[1.0, float("inf")]]), torch.ones(1, 2))
        assert not found.finite
