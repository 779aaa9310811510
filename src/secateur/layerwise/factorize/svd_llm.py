"""The low rank with the least layer error: SVD of the whitened weight (SVD-LLM, arXiv 2403.07378).

Glossary: ``W`` (m, d), ``C = X^T X = S S^T`` (d, d), ``sigma`` singular values of ``W S``.

    W_r = svd_r(W S) S^-1,        || (W - W_r) X^T ||_F = sqrt(sum over i > r of sigma_i^2)

SVD-LLM takes S from Cholesky, EoRA (arXiv 2410.21271) from eigenvectors, LLM-ROM (arXiv 2312.07046) and LoRD project on
the principal outputs: the products are the same matrix (see the tests), so this one function serves them all. S is the
symmetric root here; eigenvalues below a floor are lifted to it, so no jitter is needed for a Gram matrix without full
rank. The re-fit of one factor and the training of both that SVD-LLM adds are not part of this.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.layerwise.factorize.factors import Factors, Root, root_of, truncated
from secateur.layerwise.factorize.method import low_rank


def svd_llm(weight: Tensor, gram: Tensor, rank: int, root: Root | None = None) -> Factors:
    """Factors of ``weight`` (m, d). ``root``: that of ``gram``, where several weights share it."""
    s = root or root_of(gram)
    found, _ = truncated(weight.double() @ s.root, rank)
    return Factors(found.left, found.right @ s.inverse)


def spectrum(weight: Tensor, gram: Tensor, root: Root | None = None) -> Tensor:
    """sigma, descending: what every rank of :func:`svd_llm` will lose, before anything is factorised."""
    s = root or root_of(gram)
    values: Tensor = torch.linalg.svdvals(weight.double() @ s.root)
    return values


METHOD = low_rank("svd-llm", "the least layer error of its rank (arXiv 2403.07378)", "gram", svd_llm)
