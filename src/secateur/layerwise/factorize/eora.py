"""A low-rank residual for whatever another method did to a weight (EoRA, arXiv 2410.21271).

Glossary: ``W`` (m, d), ``W_c`` (m, d) what the other method left of it, ``C = S S^T`` (d, d).

    B A = svd_r((W - W_c) S) S^-1,     the layer then computes (W_c + B A) x

Error left: the tail of the whitened residual's singular values; full rank restores the layer. The solution is
``svd-llm`` of the residual, so quantised + sparse + low rank compose by calling this last. EoRA draws 64-256 samples of
a task; here it is the Gram matrix the other method was given.
"""

from __future__ import annotations

from torch import Tensor

from secateur.layerwise.factorize.factors import Factors, Root
from secateur.layerwise.factorize.svd_llm import svd_llm


def eora(weight: Tensor, compressed: Tensor, gram: Tensor, rank: int, root: Root | None = None) -> Factors:
    """(B (m, r), A (r, d)) to be added to ``compressed``."""
    return svd_llm(weight.double() - compressed.double(), gram, rank, root)
