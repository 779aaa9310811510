"""MoDeGPT, type I: fewer neurons in an MLP, the rest making up for them (Nystrom; arXiv 2408.09632).

Glossary: ``h`` (f,) what the down projection reads, ``C = sum h h^T`` (f, f), ``W`` (d, f) the down projection, ``K``
the kept neurons.

    leverage_j = [C (C + lam I)^-1]_jj,  lam = ridge * mean(diag C);   K: the k largest
    W' = W C_:K (C_KK)^-1                       the least squares of the old output on the kept neurons

up and gate lose rows, so nothing needs to be stored beside a smaller MLP. W' is the pruner's closed-form repair for
this axis, and one-shot OBS for columns (see the tests). Which neurons stay matters less than W', which a public variant
leaves out.
"""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-2
"""Of the leverage scores."""
JITTER = 1e-10
"""Added to C_KK, relative to its mean diagonal: neurons that copy each other would make it singular."""


def leverage(gram: Tensor, ridge: float = RIDGE) -> Tensor:
    """Ridge leverage scores (f,), each from 0 to 1; zeros where no token came."""
    wide = gram.double()
    lam = ridge * float(wide.diagonal().mean())
    if not lam > 0:
        return torch.zeros(len(wide), dtype=torch.float64)
    system = wide + lam * torch.eye(len(wide), dtype=torch.float64)
    # C (C + lam I)^-1 = I - lam (C + lam I)^-1
    return 1 - lam * torch.cholesky_inverse(torch.linalg.cholesky(system)).diagonal()


def compensated(down: Tensor, gram: Tensor, kept: Tensor) -> Tensor:
    """W' (d, k) for the neurons ``kept`` (sorted indices)."""
    wide, part = gram.double(), gram.double()[kept][:, kept]
    jitter = JITTER * float(part.diagonal().mean())
    if not jitter > 0:
        return down.double()[:, kept]
    system = part + jitter * torch.eye(len(kept), dtype=torch.float64)
    right = down.double() @ wide[:, kept] + jitter * down.double()[:, kept]
    solved: Tensor = torch.cholesky_solve(right.T, torch.linalg.cholesky(system)).T
    return solved
