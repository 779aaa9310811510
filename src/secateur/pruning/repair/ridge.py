"""Ridge regression towards the weights a cut left, from streamed sums, or from the tokens where those are few.

Glossary: ``X`` (tokens, inputs) what a linear of the child reads, ``Y`` (tokens, outputs) what its output should be,
``W0`` (outputs, inputs) its weight after the cut, ``b0`` its bias (or none).

    W* = argmin || Y - X W^T ||^2 + lam || W - W0 ||^2
       = W0 + (Y^T X - W0 X^T X) (X^T X + lam I)^-1,       lam = damp * mean(diag(X^T X))
       = W0 + (Y - X W0^T)^T (X X^T + lam I)^-1 X          cheaper, and small, while tokens are few (push-through)

With a bias, X and Y are centred first and b = mean(Y) - W mean(X): the bias takes up the mean error exactly (FLAP's
bias compensation, arXiv 2312.11983, is the special case W = W0). Products are taken in float32, or in float64 where
the activations are; sums and the factorisation are float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from secateur.linalg import cholesky_

PANEL = 2048
"""Inputs that are multiplied at once."""
CERTAIN = 1e-9
"""A ridge above this share of the largest diagonal entry outweighs any rounding of a float64 factorisation."""


@dataclass
class Sums:
    """Additive sums of one linear over tokens: Gram (n, n), cross (m, n), sums of x and y, |y|^2 and count."""

    gram: torch.Tensor
    cross: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    yy: float = 0.0
    count: int = 0

    @classmethod
    def zeros(cls, inputs: int, outputs: int, device: torch.device | str = "cpu") -> Sums:
        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        return cls(zeros(inputs, inputs), zeros(outputs, inputs), zeros(inputs), zeros(outputs))

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Add tokens: ``x`` (..., inputs), ``y`` (..., outputs)."""
        wide = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
        x2, y2 = x.reshape(-1, x.shape[-1]).to(wide), y.reshape(-1, y.shape[-1]).to(wide)
        for start in range(0, x2.shape[1], PANEL):  # a product as large as the Gram never exists
            at = slice(start, start + PANEL)
            self.gram[at] += x2[:, at].T @ x2
        self.cross += y2.T @ x2
        self.x += x2.sum(0, dtype=torch.float64)
        self.y += y2.sum(0, dtype=torch.float64)
        self.yy += float(y2.double().square().sum())
        self.count += x2.shape[0]

    @property
    def finite(self) -> bool:
        """False when an activation overflowed: nothing can be fitted to that."""
        return math.isfinite(self.yy) and bool(torch.isfinite(self.gram).all())

    def error(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> float:
        """sum over tokens of || y - W x - b ||^2, from the sums alone."""
        w = weight.double()
        out = self.yy - 2 * float((w * self.cross).sum()) + float(((w @ self.gram) * w).sum())
        if bias is not None:
            b = bias.double()
            out += -2 * float(b @ self.y) + 2 * float(b @ (w @ self.x)) + self.count * float(b @ b)
        return out


def solve(
    sums: Sums, weight: torch.Tensor, *, damp: float = 1e-2, with_bias: bool = False, consume: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(W*, b* or None), float64. ``damp`` scales the ridge with the mean of the Gram's diagonal.

    With ``damp`` 0 the solution nearest to ``weight``: directions of the input that no token took keep their weights.
    ``consume``: the sums may be overwritten, which halves the memory.
    """
    w0 = weight.double()
    gram, cross = sums.gram, sums.cross
    if with_bias and sums.count:
        gram = gram - torch.outer(sums.x, sums.x) / sums.count
        cross = cross - torch.outer(sums.y, sums.x) / sums.count
    mine = consume or gram is not sums.gram
    rest = (cross if mine else cross.clone()).addmm_(w0, gram, alpha=-1)
    w = _divided(rest, gram, damp * float(gram.diagonal().mean()), mine).add_(w0)
    bias = (sums.y - w @ sums.x) / max(1, sums.count) if with_bias else None
    return w, bias


def solve_rows(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, *, damp: float = 1e-2, with_bias: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What :func:`solve` gives, from x (tokens, inputs) and y (tokens, outputs): nothing is (inputs, inputs).

    X X^T is summed in float64; the other two products with X are taken in the dtype of the activations.
    """
    mean_x, mean_y = x.mean(0, dtype=torch.float64), y.mean(0, dtype=torch.float64)
    if with_bias:
        x, y = x - mean_x.to(x.dtype), y - mean_y.to(y.dtype)
    inner = x.new_zeros(len(x), len(x), dtype=torch.float64)
    for panel in torch.split(x, PANEL, 1):
        wide = panel.double()
        inner.addmm_(wide, wide.T)
    missing = y.double() - x @ weight.to(x.dtype).T
    ridge = damp * float(inner.diagonal().sum()) / x.shape[1]
    w = (_divided(missing.T.contiguous(), inner, ridge).to(x.dtype) @ x).double().add_(weight.double())
    return w, mean_y - w @ mean_x if with_bias else None


def _divided(rest: torch.Tensor, gram: torch.Tensor, ridge: float, consume: bool = False) -> torch.Tensor:
    """``rest (gram + ridge I)^-1``, of the shape of ``rest``; the pseudo-inverse where nothing can be factorised.

    ``consume``: the Gram may be overwritten by its factor; only where the ridge leaves no doubt that there is one.
    """
    precision = gram.shape[0] * torch.finfo(gram.dtype).eps
    diagonal = gram.diagonal()
    if ridge > precision * float(diagonal.max()):
        before, certain = diagonal.clone(), ridge > CERTAIN * float(diagonal.max())
        diagonal += ridge  # in place and taken back: the system is as large as everything else together
        spent = consume and certain
        factor = cholesky_(gram if spent else gram.clone())
        if not spent:
            diagonal.copy_(before)
        if factor is not None:
            half = torch.linalg.solve_triangular(factor.mT, rest, upper=True, left=False)
            solved: torch.Tensor = torch.linalg.solve_triangular(factor, half, upper=False, left=False)
            return solved
        del factor
    values, vectors = torch.linalg.eigh(gram)
    top = float(values[-1])
    kept = values > precision * max(top, 0.0)
    inverse = torch.where(kept, 1 / (values.clamp(min=0) + ridge), 0.0)
    divided: torch.Tensor = ((rest @ vectors) * inverse) @ vectors.T
    return divided


def fitted_scale(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """The scalar g least squares prefers in ``want ~ g * got`` over all (want, got): <want, got> / <got, got>."""
    dot = norm = 0.0
    for want, got in pairs:
        b = got.double()
        dot += float((want.double() * b).sum())
        norm += float(b.square().sum())
    return dot / norm if norm > 0 else 1.0
