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
from dataclasses import dataclass
from functools import cached_property

import torch

from secateur.errors import UsageError

DAMP = 1e-2
"""The damping of SparseGPT, GPTQ and their kin."""


@dataclass
class Gram:
    """``matrix`` (d, d) float64, summed over ``tokens`` tokens. ``note``: where it comes from, when not as usual."""

    matrix: torch.Tensor
    tokens: int = 0
    note: str = ""

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

    @cached_property
    def dead(self) -> torch.Tensor:
        """Inputs that were zero in every token, bool (d,). Read it when nothing is added any more."""
        return self.matrix.diagonal() == 0

    def damped(self, damp: float = DAMP) -> torch.Tensor:
        """H = C + damp * mean(diag C) * I, with 1 on the diagonal of dead inputs; a fresh (d, d) float64.

        Raises UsageError when an activation overflowed.
        """
        mean = float(self.matrix.diagonal().mean())
        if not math.isfinite(mean):
            raise UsageError(
                "the calibration text makes a layer's activations overflow: no layer-wise method can use that",
                hint="compute in a wider dtype (--dtype float32), or use other text",
            )
        h = self.matrix.clone()
        h.diagonal().add_(damp * mean)
        h.diagonal()[self.dead] = 1.0
        return h

    def inverse(self, damp: float = DAMP) -> torch.Tensor:
        """H^-1 (d, d), symmetric; see :func:`spd_inverse`."""
        return spd_inverse(self.damped(damp))

    def sweep(self, damp: float = DAMP) -> torch.Tensor:
        """U (d, d), upper triangular, with H^-1 = U^T U: row j holds what columns from j on must know of each other
        when all columns before j are settled (SparseGPT, GPTQ)."""
        upper: torch.Tensor = torch.linalg.cholesky(self.inverse(damp), upper=True)
        return upper

    def error(self, delta: torch.Tensor) -> float:
        """tr(delta C delta^T): squared error of the outputs when the weight changes by ``delta`` (m, d); nan without a
        Gram."""
        if not self.width:
            return math.nan
        d = delta.double()
        return float(((d @ self.matrix) * d).sum())

    def row_errors(self, delta: torch.Tensor) -> torch.Tensor:
        """The same for each output, (m,)."""
        d = delta.double()
        return ((d @ self.matrix) * d).sum(1)


def spd_inverse(h: torch.Tensor) -> torch.Tensor:
    """Inverse of a symmetric positive definite ``h`` (..., d, d). Raises UsageError when it is none."""
    factor, failed = torch.linalg.cholesky_ex(h)
    if bool(failed.any()):
        raise UsageError(
            "a Gram matrix cannot be factorised: its inputs depend on each other",
            hint="give a larger --damp, or more text",
        )
    inverse: torch.Tensor = torch.cholesky_inverse(factor)
    return inverse


def gram_bytes(width: int) -> int:
    """Memory of one Gram of ``width`` inputs."""
    return 8 * width * width
