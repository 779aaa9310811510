"""The Gram's shortcuts against their plain forms."""

from __future__ import annotations

import pytest
import torch

from secateur.errors import UsageError
from secateur.layerwise.gram import Gram, add_upper, invert_upper_, mirrored, reverse_, transpose_
from tests.layerwise.made import inputs


@pytest.mark.parametrize("width", [1, 5, 256, 300, 600])
def test_upper_blocks_and_their_image_are_the_gram(width: int) -> None:
    x, y = inputs(50, width), inputs(30, width, seed=1)
    matrix = torch.zeros(width, width, dtype=torch.float64)
    add_upper(matrix, x)
    add_upper(matrix, y)
    want = x.T @ x + y.T @ y
    assert torch.allclose(mirrored(matrix), want, atol=1e-12 * float(want.abs().max()))
    if width > 256:
        assert float(matrix[256:, :256].abs().max()) > 0


@pytest.mark.parametrize("width", [1, 7, 128, 129, 400])
def test_one_factorisation_gives_what_two_and_an_inverse_give(width: int) -> None:
    h = Gram.of(inputs(2 * width + 3, width)).damped()
    want = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    got = Gram(h).sweep(0.0).upper()
    assert torch.allclose(got, want, rtol=0, atol=1e-11 * float(want.abs().max()))
    assert torch.equal(got, got.triu())
    r = torch.linalg.cholesky(h, upper=True)
    inverse = r.clone()
    invert_upper_(inverse)
    assert torch.allclose(inverse @ r, torch.eye(width, dtype=torch.float64), atol=1e-10)


@pytest.mark.parametrize("width", [1, 2, 7, 256, 300, 700])
def test_a_matrix_is_turned_round_in_its_place(width: int) -> None:
    before = torch.arange(width * width, dtype=torch.float64).view(width, width)
    after = before.clone()
    reverse_(after.view(-1))
    assert torch.equal(after, before.flip(0, 1))
    transpose_(after)
    assert torch.equal(after, before.flip(0, 1).T)


def test_what_is_not_positive_definite_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be factorised"):
        Gram(torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)).sweep(0.0)


def test_the_loudest_inputs_come_first_and_the_factor_is_kept() -> None:
    x = inputs(200, 12)
    x[:, 3] = 0
    gram = Gram.of(x)
    h, order = gram.damped(0.01), gram.loudest(0.01)
    assert torch.equal(order, torch.argsort(h.diagonal(), descending=True, stable=True))
    factor = gram.sweep(0.01, loudest=True)
    upper = factor.upper()
    assert torch.allclose(upper.T @ upper, torch.linalg.inv(h[order][:, order]), atol=1e-10)
    assert torch.allclose(factor.upper(3, 9), upper[3:9, 3:9], rtol=1e-12, atol=0)
    assert gram.sweep(0.01, loudest=True) is factor
    assert not torch.equal(gram.sweep(0.01).upper(), upper)
    assert not torch.equal(gram.sweep(0.1, loudest=True).upper(), upper)
    assert torch.equal(gram.sweep(0.01, loudest=True, dtype=torch.float32).rows, factor.rows.float())


@pytest.mark.parametrize("width", [1, 20, 256, 600])
def test_an_error_is_that_of_the_outputs(width: int) -> None:
    x, w = inputs(100, width), torch.randn(7, width, dtype=torch.float64)
    want = float((x @ w.T).square().sum())
    assert Gram.of(x).error(w) == pytest.approx(want, rel=1e-12)
    assert Gram.of(x).error(w.float()) == pytest.approx(want, rel=1e-5)


def test_of_a_diagonal_inputs_are_uncorrelated() -> None:
    squares, w = torch.rand(20, dtype=torch.float64), torch.randn(7, 20, dtype=torch.float64)
    alone, full = Gram(squares, 9), Gram(torch.diag(squares), 9)
    assert alone.width == full.width and torch.equal(alone.diagonal, full.diagonal)
    assert alone.error(w) == pytest.approx(full.error(w), rel=1e-12)
