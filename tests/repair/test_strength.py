"""How strong a ridge should be, against brute force."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from secateur.pruning.repair import strength as under_test
from secateur.pruning.repair.evidence import Evidence
from secateur.pruning.repair.ridge import solve
from secateur.pruning.repair.strength import STRENGTHS, Choice, from_rows, from_sums, held_back

from .test_ridge import problem, summed

HELD = 12


def direct(x: Tensor, y: Tensor, w0: Tensor, strength: float, with_bias: bool) -> float:
    """Fit on all but the first tokens, predict those."""
    w, b = solve(summed(x[HELD:], y[HELD:]), w0, damp=strength, with_bias=with_bias)
    off = y[:HELD] - x[:HELD] @ w.T - (0 if b is None else b)
    return float(off.square().sum())


def choices(x: Tensor, y: Tensor, w0: Tensor, with_bias: bool) -> list[Choice]:
    held = x[:HELD], y[:HELD]
    return [
        from_sums(summed(x[HELD:], y[HELD:]), held, w0, with_bias),
        from_rows((x[HELD:], y[HELD:]), held, w0, with_bias),
    ]


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("tokens", [15, 60])
def test_the_error_on_what_was_held_back(tokens: int, with_bias: bool) -> None:
    x, y, w0 = problem(tokens + HELD)
    for strength in STRENGTHS:
        want = direct(x, y, w0, strength, with_bias)
        for choice in choices(x, y, w0, with_bias):
            assert choice.errors(strength) == pytest.approx(want, rel=2e-3), strength


def test_some_outputs_decide_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, w0 = problem(outputs=12)
    monkeypatch.setattr(under_test, "PROBED", 4)
    for choice in choices(x, y, w0, True):
        assert choice.errors(1.0) == pytest.approx(direct(x, y[:, ::3], w0[::3], 1.0, True), rel=2e-3)


def noisy(tokens: int, inputs: int, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    x, w = torch.randn(tokens, inputs, generator=g).double(), torch.randn(8, inputs, generator=g).double()
    return x, x @ w.T + noise * torch.randn(tokens, 8, generator=g).double(), w + 0.1


def test_little_and_noisy_text_pulls_more() -> None:
    """The best of the grid on text of the same kind is the chosen one or beside it."""
    found = []
    for tokens, inputs, noise in ((400, 10, 0.0), (40, 60, 3.0)):
        x, y, w0 = noisy(tokens + 2000, inputs, noise)
        new, fit = slice(tokens, None), slice(0, tokens)
        evidence = Evidence(inputs, 8, held_back(tokens))
        evidence.add(x[fit], y[fit])
        strength = evidence.choose(w0, with_bias=False)
        weights = [solve(summed(x[fit], y[fit]), w0, damp=s)[0] for s in STRENGTHS]
        errors = [float((y[new] - x[new] @ w.T).square().sum()) for w in weights]
        assert abs(STRENGTHS.index(strength) - errors.index(min(errors))) <= 1
        found.append(strength)
    assert found[0] == STRENGTHS[0] and found[1] > 1


def test_what_was_held_back_is_fitted_too() -> None:
    x, y, w0 = problem(60)
    for tokens in (60, 3):  # sums, rows
        evidence, whole = Evidence(7, 4, held_back(tokens)), Evidence(7, 4)
        for part in (evidence, whole):
            part.add(x[:tokens], y[:tokens])
        assert sum(len(a) for a, _ in evidence.held) == tokens // 4
        damp = evidence.choose(w0, with_bias=True)
        got, want = (part.solve(w0, damp=damp, with_bias=True) for part in (evidence, whole))
        assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(got, want, strict=True) if a is not None)


def test_nothing_to_hold_back_and_nothing_to_factorise() -> None:
    assert [held_back(n) for n in (0, 3, 8, 10**6)] == [0, 0, 2, under_test.HELD]
    assert Evidence(7, 4).choose(torch.zeros(4, 7), with_bias=False) == under_test.DEFAULT
    broken = Choice(-torch.eye(3), torch.ones(4, 3), torch.ones(2, 3), torch.ones(4, 2), 1e-3)
    assert broken.errors(1.0) == math.inf
    assert broken.best() in STRENGTHS
