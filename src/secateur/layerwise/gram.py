"""The Gram matrix of a linear's inputs: all that layer-wise methods know of the text.

Glossary: ``X`` (tokens, d) what a linear ``W`` (m, d) reads, ``C = X^T X`` (d, d) a sum over tokens, no mean. For any
other weight W' the error of the outputs follows from C alone:

    || X (W - W')^T ||^2 = tr( (W - W') C (W - W')^T )

One convention of damping everywhere: ``H = C + damp * mean(diag C) * I``, and a dead input (zero on the diagonal of C)
gets diagonal 1 and is free to go. Solutions do not change with the scale of C, so published factors (2/n) drop out.
Products of a batch are taken in float32, or in float64 where the activations are; sums and factors are float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch

from secateur.errors import UsageError
from secateur.linalg import cholesky_

DAMP = 1e-2
"""The damping of SparseGPT, GPTQ and their kin."""
_SMALL, _BLOCK, _PIECE = 128, 256, 1 << 18


@dataclass
class Gram:
    """``matrix`` (d, d) float64, summed over ``tokens`` tokens; (d,) where only its diagonal is known and inputs are
    taken for uncorrelated. ``note``: where it comes from, when not as usual."""

    matrix: torch.Tensor
    tokens: int = 0
    note: str = ""
    _sweeps: dict[tuple[float, bool, torch.dtype], Factor] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def zeros(cls, width: int, device: torch.device | str = "cpu") -> Gram:
        """No text yet; of ``width`` 0 where there will be none."""
        return cls(torch.zeros(width, width, dtype=torch.float64, device=device))

    @classmethod
    def of(cls, x: torch.Tensor) -> Gram:
        """The Gram of activations (..., d)."""
        gram = cls.zeros(x.shape[-1], x.device)
        gram.add(x)
        return gram

    @property
    def width(self) -> int:
        """Inputs d."""
        return int(self.matrix.shape[0])

    def add(self, x: torch.Tensor) -> None:
        """Add tokens ``x`` (..., d)."""
        wide = x.reshape(-1, x.shape[-1]).to(torch.promote_types(x.dtype, torch.float32))
        self.matrix += wide.T @ wide
        self.tokens += wide.shape[0]

    def joined(self, other: Gram) -> Gram:
        """The Gram of both texts."""
        return Gram(self.matrix + other.matrix, self.tokens + other.tokens, self.note or other.note)

    @property
    def diagonal(self) -> torch.Tensor:
        """Squared norm of each input, (d,)."""
        return self.matrix if self.matrix.ndim == 1 else self.matrix.diagonal()

    @cached_property
    def dead(self) -> torch.Tensor:
        """Inputs that were zero in every token, bool (d,). Read it when nothing is added any more."""
        return self.diagonal == 0

    def damped(self, damp: float = DAMP) -> torch.Tensor:
        """H = C + damp * mean(diag C) * I, with 1 on the diagonal of dead inputs; a fresh (d, d) float64.

        Raises UsageError when an activation overflowed.
        """
        h = self.matrix.clone()
        h.diagonal().copy_(self._diagonal(damp))
        return h

    def _diagonal(self, damp: float) -> torch.Tensor:
        """That of H, (d,)."""
        mean = float(self.diagonal.mean())
        if not math.isfinite(mean):
            raise UsageError(
                "the calibration text makes a layer's activations overflow: no layer-wise method can use that",
                hint="compute in a wider dtype (--dtype float32), or use other text",
            )
        return torch.where(self.dead, 1.0, self.diagonal + damp * mean)

    def inverse(self, damp: float = DAMP) -> torch.Tensor:
        """H^-1 (d, d), symmetric; see :func:`spd_inverse`."""
        return spd_inverse(self.damped(damp))

    def loudest(self, damp: float = DAMP) -> torch.Tensor:
        """Inputs by the diagonal of H, the largest first, (d,)."""
        return torch.argsort(self._diagonal(damp), descending=True, stable=True)

    def sweep(self, damp: float = DAMP, *, loudest: bool = False, dtype: torch.dtype = torch.float64) -> Factor:
        """The factor of H^-1 that column sweeps read, made in float64 and kept in ``dtype``. ``loudest``: of the inputs
        in that order.

        Kept: linears that read one input share it. Read it when nothing is added any more.
        """
        key = damp, loudest, dtype
        if key not in self._sweeps:
            order = self.loudest(damp) if loudest else torch.arange(self.width, device=self.matrix.device)
            upper = self._factor(damp, order)
            scale = upper.diagonal().clone()
            self._sweeps[key] = Factor(upper.div_(scale[:, None]).to(dtype), scale)
        return self._sweeps[key]

    def _factor(self, damp: float, order: torch.Tensor) -> torch.Tensor:
        """U of the inputs in ``order``: H = R R^T with R upper triangular (Cholesky from the last row up), U = R^-1.

        One factorisation instead of two with an inverse between them, and every step where its matrix lies: besides the
        Gram memory holds U and a quarter.
        """
        last = order.flip(0)
        h = torch.empty_like(self.matrix)
        for row in range(0, self.width, _BLOCK):
            h[row : row + _BLOCK] = self.matrix[last[row : row + _BLOCK]].index_select(1, last)
        h.diagonal().copy_(self._diagonal(damp)[last])
        if cholesky_(h) is None:  # h's rows hold L^T
            raise _dependent()
        reverse_(h.view(-1))
        transpose_(h)
        invert_upper_(h)
        return h

    def error(self, delta: torch.Tensor) -> float:
        """tr(delta C delta^T): squared error of the outputs when the weight changes by ``delta`` (m, d), multiplied in
        its dtype, summed in float64; nan without a Gram. C is its own mirror image: only upper blocks are read."""
        if not self.width:
            return math.nan
        if self.matrix.ndim == 1:
            return float((delta.square() @ self.matrix.to(delta.dtype)).sum(dtype=torch.float64))
        total = 0.0
        for row in range(0, self.width, _BLOCK):
            last = min(row + _BLOCK, self.width)
            across = self.matrix[row:last, row:].to(delta.dtype)
            mine, size = delta[:, row:last], last - row
            told = torch.addmm(mine @ across[:, :size], delta[:, last:], across[:, size:].T, alpha=2)
            total += float(told.mul_(mine).sum(1).sum(dtype=torch.float64))
        return total


@dataclass(frozen=True)
class Factor:
    """H^-1 = U^T U with U (d, d) upper triangular: row j holds what columns from j on must know of each other when all
    columns before j are settled (SparseGPT, GPTQ). ``rows`` (d, d): those of U, divided by its diagonal ``scale`` (d,)
    float64."""

    rows: torch.Tensor
    scale: torch.Tensor

    def upper(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """U, or its square block of columns ``start`` to ``stop``; float64."""
        span = slice(start, stop)
        return self.rows[span, span].double() * self.scale[span, None]


def add_upper(matrix: torch.Tensor, x: torch.Tensor) -> None:
    """Add x^T x of tokens ``x`` (n, d) to the blocks of ``matrix`` (d, d) on and above the diagonal: what lies below is
    their mirror image, and nearly half of the work is saved."""
    d = x.shape[1]
    for row in range(0, d, _BLOCK):
        matrix[row : row + _BLOCK, row:] += x[:, row : row + _BLOCK].T @ x[:, row:]


def mirrored(matrix: torch.Tensor) -> torch.Tensor:
    """The whole of a matrix that :func:`add_upper` made, in its place."""
    d = matrix.shape[0]
    for row in range(0, d, _BLOCK):
        matrix[row + _BLOCK :, row : row + _BLOCK] = matrix[row : row + _BLOCK, row + _BLOCK :].T
    return matrix


def spd_inverse(h: torch.Tensor) -> torch.Tensor:
    """Inverse of a symmetric positive definite ``h`` (..., d, d). Raises UsageError when it is none."""
    inverse: torch.Tensor = torch.cholesky_inverse(_cholesky(h))
    return inverse


def reverse_(flat: torch.Tensor) -> None:
    """Reverse a vector in its place."""
    n = len(flat)
    for start in range(0, n // 2, _PIECE):
        stop = min(start + _PIECE, n // 2)
        head, tail = flat[start:stop], flat[n - stop : n - start]
        kept = head.clone()
        head.copy_(tail.flip(0))
        tail.copy_(kept.flip(0))


def transpose_(m: torch.Tensor) -> None:
    """Transpose a square matrix in its place, block by block."""
    blocks = [slice(i, i + _BLOCK) for i in range(0, m.shape[0], _BLOCK)]
    for n, i in enumerate(blocks):
        for j in blocks[n:]:
            kept = m[i, j].clone()
            m[i, j] = m[j, i].T.clone() if i == j else m[j, i].T
            m[j, i] = kept.T


def invert_upper_(r: torch.Tensor) -> None:
    """Invert an upper triangular matrix (d, d), zero below, in its place and by halves: nearly all of it products."""
    d = r.shape[0]
    if d <= _SMALL:
        r.copy_(torch.linalg.solve_triangular(r, torch.eye(d, dtype=r.dtype, device=r.device), upper=True))
        return
    half = d // 2
    invert_upper_(r[:half, :half])
    invert_upper_(r[half:, half:])
    product = r[:half, half:] @ r[half:, half:]
    torch.mm(r[:half, :half], product.neg_(), out=r[:half, half:])


def _cholesky(h: torch.Tensor) -> torch.Tensor:
    factor, failed = torch.linalg.cholesky_ex(h)
    if bool(failed.any()):
        raise _dependent()
    lower: torch.Tensor = factor
    return lower


def _dependent() -> UsageError:
    return UsageError(
        "a Gram matrix cannot be factorised: its inputs depend on each other",
        hint="give a larger --damp, or more text",
    )


def gram_bytes(width: int, *, diagonal: bool = False) -> int:
    """Memory of one Gram of ``width`` inputs, or of its diagonal."""
    return 8 * width * (1 if diagonal else width)
