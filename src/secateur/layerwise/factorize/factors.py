"""Two thin matrices in place of one, and the roots of a Gram matrix that say in which directions errors count.

Glossary: ``W`` (m, d) a weight, ``C = X^T X`` (d, d) the Gram matrix of what it reads, ``S`` a root, ``C = S S^T``.

    || (W - W') X^T ||_F  =  || (W - W') S ||_F

so every layer error below is a plain Frobenius norm after multiplication by S.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.errors import UsageError
from secateur.layerwise.base import Unfit

FLOOR = 1e-10
"""Eigenvalues of a Gram matrix below this part of the largest count as this much: directions that no token took stay
invertible, come last, and full rank still restores the weight."""


@dataclass(frozen=True, slots=True)
class Factors:
    """``left @ right`` stands for a weight. Shapes (m, r) and (r, d), float64."""

    left: Tensor
    right: Tensor

    @property
    def rank(self) -> int:
        return int(self.left.shape[1])

    @property
    def product(self) -> Tensor:
        return self.left @ self.right


@dataclass(frozen=True, slots=True)
class Root:
    """``root`` S with C = S S^T up to the floor, and its inverse; both (d, d), float64."""

    root: Tensor
    inverse: Tensor


def root_of(gram: Tensor, floor: float = FLOOR) -> Root:
    """The symmetric root of a Gram matrix (d, d). Without any energy (no token came) the identity."""
    values, vectors = torch.linalg.eigh(gram.double())
    top = float(values[-1])
    if not top > 0:
        return Root(*(torch.eye(len(gram), dtype=torch.float64, device=gram.device),) * 2)
    values = values.clamp(min=floor * top)
    return Root((vectors * values.sqrt()) @ vectors.T, (vectors * values.rsqrt()) @ vectors.T)


def truncated(matrix: Tensor, rank: int) -> tuple[Factors, Tensor]:
    """(best rank-r factors in Frobenius norm, all singular values); the singular values are shared by both factors."""
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    share = s[:rank].sqrt()
    return Factors(u[:, :rank] * share, share[:, None] * vt[:rank]), s


def tail(singular: Tensor, rank: int) -> float:
    """sqrt of the sum of squares of what a cut at ``rank`` leaves out."""
    return float(singular[rank:].square().sum().sqrt())


def rank_of(ratio: float, m: int, d: int) -> int:
    """The rank at which two factors hold ``ratio`` of the parameters of an (m, d) weight: floor(m d ratio / (m + d)).

    Raises UsageError outside 0 < ratio <= 1, Unfit when not even rank 1 fits.
    """
    if not 0 < ratio <= 1:
        raise UsageError(f"ratio {ratio:g}: expected the part of the parameters to keep, above 0 and up to 1")
    rank = math.floor(m * d * ratio / (m + d) + 1e-9)
    if rank < 1:
        least = (m + d) / (m * d)
        raise Unfit(f"ratio {ratio:g}: rank 1 of a {m} x {d} weight takes {least:.3g} of its parameters already")
    return min(rank, m, d)
