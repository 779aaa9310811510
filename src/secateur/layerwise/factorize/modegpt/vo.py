"""MoDeGPT, type III: values and outputs of attention in fewer channels (joint SVD; arXiv 2408.09632).

Glossary: ``x`` (d,) what the value projection reads, ``C = sum x x^T = S S^T`` (d, d), ``V`` (e, d) the value
projection of one key/value head, ``O_1 .. O_r`` (d, e) the slices of the output projection of the query heads that
share it.

    [O_1; ..; O_r] V S = U diag(s) Z^T,     V' = (Z^T S^-1)_:k  (k, d),     [O'_1; ..] = (U s)_:k

The least error of any k shared channels: the tail of s. Attention mixes values over tokens, which C does not see; this
is the error for tokens as they are. It is ``svd-llm`` of the product, reached through e x e matrices. MoDeGPT treats
heads that share values one by one; here they get one basis, so the key/value cache shrinks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.layerwise.factorize.factors import Root


def joint(values: Tensor, outputs: Tensor, root: Root, keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """(V' (k, d), O' (r, d_out, k), all singular values). ``values`` (e, d), ``outputs`` (r, d_out, e)."""
    r, d_out, e = outputs.shape
    u, s, zt = torch.linalg.svd(values.double() @ root.root, full_matrices=False)
    inner = outputs.double().reshape(r * d_out, e) @ (u * s)
    left, singular, turn = torch.linalg.svd(inner, full_matrices=False)
    new_values = turn[:keep] @ zt @ root.inverse
    new_outputs = left[:, :keep] * singular[:keep]
    return new_values, new_outputs.reshape(r, d_out, keep), singular
