"""Ridge regression towards the weights a cut left, from streamed sums.

Glossary: ``X`` (tokens, inputs) what a linear of the child reads, ``Y`` (tokens, outputs) what its output should be,
``W0`` (outputs, inputs) its weight after the cut, ``b0`` its bias (or none).

    W* = argmin || Y - X W^T ||^2 + lam || W - W0 ||^2
       = W0 + (Y^T X - W0 X^T X) (X^T X + lam I)^-1,       lam = damp * mean(diag(X^T X))

With a bias, X and Y are centred first and b = mean(Y) - W mean(X): the bias takes up the mean error exactly (FLAP's
bias compensation, arXiv 2312.11983, is the special case W = W0). Sums are float64; the factorisation is float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


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
    def zeros(cls, inputs: int, outputs: int) -> Sums:
        z = torch.zeros
        return cls(
            z(inputs, inputs, dtype=torch.float64),
            z(outputs, inputs, dtype=torch.float64),
            z(inputs, dtype=torch.float64),
            z(outputs, dtype=torch.float64),
        )

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Add tokens: ``x`` (..., inputs), ``y`` (..., outputs)."""
        x2, y2 = x.reshape(-1, x.shape[-1]).float(), y.reshape(-1, y.shape[-1]).float()
        self.gram += (x2.T @ x2).double()
        self.cross += (y2.T @ x2).double()
        self.x += x2.sum(0, dtype=torch.float64)
        self.y += y2.sum(0, dtype=torch.float64)
        self.yy += float(y2.double().square().sum())
        self.count += x2.shape[0]

    def error(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> float:
        """sum over tokens of || y - W x - b ||^2, from the sums alone."""
        w = weight.double()
        out = self.yy - 2 * float((w * self.cross).sum()) + float(((w @ self.gram) * w).sum())
        if bias is not None:
            b = bias.double()
            out += -2 * float(b @ self.y) + 2 * float(b @ (w @ self.x)) + self.count * float(b @ b)
        return out


def solve(
    sums: Sums, weight: torch.Tensor, *, damp: float = 1e-2, with_bias: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(W*, b* or None), float64. ``damp`` scales the ridge with the mean of the Gram's diagonal."""
    w0 = weight.double()
    gram, cross = sums.gram, sums.cross
    if with_bias and sums.count:
        gram = gram - torch.outer(sums.x, sums.x) / sums.count
        cross = cross - torch.outer(sums.y, sums.x) / sums.count
    lam = damp * float(gram.diagonal().mean())
    system = gram + max(lam, 1e-30) * torch.eye(gram.shape[0], dtype=torch.float64)
    factor = torch.linalg.cholesky(system)
    step = torch.cholesky_solve((cross - w0 @ gram).T, factor).T
    w = w0 + step
    bias = (sums.y - w @ sums.x) / max(1, sums.count) if with_bias else None
    return w, bias


def fitted_scale(want: torch.Tensor, got: torch.Tensor) -> float:
    """The scalar g least squares prefers in ``want ~ g * got``: <want, got> / <got, got>."""
    a, b = want.double().reshape(-1), got.double().reshape(-1)
    norm = float(b @ b)
    return float(a @ b) / norm if norm > 0 else 1.0
