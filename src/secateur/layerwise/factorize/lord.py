"""Output-side decomposition: project what a linear puts out on its principal directions (LoRD, arXiv 2309.14021).

Glossary: ``W`` (m, d), ``C = X^T X`` (d, d), ``mu`` (d,) mean input, ``V_r`` (m, r) top eigenvectors of the covariance
of the outputs, ``W C W^T`` (minus ``n W mu mu^T W^T`` when centred).

    W ~ V_r (V_r^T W)                     bias: (I - V_r V_r^T) W mu, when centred

Uncentred the product is that of ``svd-llm``, reached through an m x m eigenproblem and without inverting C: cheaper
where m < d, orthonormal on the left. LoRD centres as Atomic Feature Mimicking does, which needs a bias to hold the
mean; a linear without one keeps the mean in its directions, so the registered method does not centre.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.layerwise.factorize.factors import Factors
from secateur.layerwise.factorize.method import low_rank


def lord(weight: Tensor, gram: Tensor, rank: int) -> Factors:
    """Factors of ``weight`` (m, d), the left one orthonormal."""
    return _projected(weight.double(), weight.double() @ gram.double() @ weight.double().T, rank)


def lord_centred(weight: Tensor, gram: Tensor, mean: Tensor, tokens: int, rank: int) -> tuple[Factors, Tensor]:
    """(factors, what to add to the bias (m,)). ``mean``: of the inputs, (d,); ``tokens``: rows of X."""
    wide, mu = weight.double(), mean.double()
    out = wide @ mu
    covariance = wide @ gram.double() @ wide.T - tokens * torch.outer(out, out)
    found = _projected(wide, covariance, rank)
    return found, out - found.product @ mu


def _projected(weight: Tensor, covariance: Tensor, rank: int) -> Factors:
    top = torch.linalg.eigh(covariance)[1][:, -rank:].flip(1)
    return Factors(top, top.T @ weight)


METHOD = low_rank("lord", "projection on the principal outputs (arXiv 2309.14021)", "gram", lord)
