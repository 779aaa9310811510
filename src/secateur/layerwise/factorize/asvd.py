"""SVD after scaling every input channel: the diagonal part of what a Gram matrix says (ASVD, arXiv 2312.05821).

Glossary: ``C`` (d, d) Gram matrix of the inputs, ``s_j = C_jj^(alpha / 2)`` size of channel j.

    W ~ svd_r(W diag(s)) diag(s)^-1

ASVD takes the mean absolute activation to the power 0.5; here it is the root mean square, and alpha is 1 unless said
otherwise: that is the optimum when channels are uncorrelated (C diagonal), where it equals ``svd-llm``.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from secateur.layerwise.factorize.factors import FLOOR, Factors, truncated
from secateur.layerwise.factorize.method import LowRank, low_rank


def asvd(weight: Tensor, gram: Tensor, rank: int, alpha: float = 1.0) -> Factors:
    """Factors of ``weight`` (m, d); ``gram`` (d, d) or its diagonal (d,). Channels that never fired count as the floor
    says."""
    energy = gram.double() if gram.ndim == 1 else gram.double().diagonal()
    top = float(energy.max())
    scale = energy.clamp(min=FLOOR * top).pow(alpha / 2) if top > 0 else energy.new_ones(len(energy))
    found, _ = truncated(weight.double() * scale, rank)
    return Factors(found.left, found.right / scale)


@dataclass(frozen=True)
class Settings(LowRank):
    """``alpha``: power of a channel's size; 0 is plain SVD."""

    alpha: float = 1.0


METHOD = low_rank("asvd", "SVD after scaling inputs by their size (arXiv 2312.05821)", "diagonal", asvd, Settings)
