"""Joint compensation: the best weights that are zero where a mask says so (arXiv 2410.15567, and least squares).

Glossary: ``w`` one row of W (m, d), ``H`` (d, d) the damped Gram, ``M`` the row's removed inputs, ``K`` the kept ones.

    w'_K = (H w)_K [H_KK]^-1                                    least squares on what stays
    w' = w - w_M ([H^-1]_MM)^-1 [H^-1]_M,:                      the same, from what goes
    loss(M) = w_M ([H^-1]_MM)^-1 w_M^T = (w - w') H (w - w')^T

The smaller of the two systems is solved, one Cholesky factor for each row, many rows at a time. With damping this is
ridge regression towards the weights as they were.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from secateur.layerwise.gram import spd_inverse
from secateur.layerwise.sparsify.pattern import positions

CHUNK_BYTES = 1 << 27
"""Memory for the systems of the rows that are solved together."""


def joint(weight: torch.Tensor, h: torch.Tensor, removed: torch.Tensor) -> torch.Tensor:
    """(m, d) float64: ``weight`` with zeros where ``removed`` (m, d), the rest compensated jointly under ``h``."""
    m, d = weight.shape
    out = torch.zeros_like(weight)
    if 2 * int(removed.sum()) < m * d:
        inverse = spd_inverse(h)
        for rows, z in _solutions(weight, inverse, removed):
            out[rows] = weight[rows] - z @ inverse
        return out.masked_fill_(removed, 0.0)
    target = weight @ h
    for rows, z in _solutions(target, h, ~removed):
        out[rows] = z
    return out


def _solutions(
    right: torch.Tensor, h: torch.Tensor, inside: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(rows, z) with z_S = right_S [h_SS]^-1 for each row's S = ``inside`` and zeros elsewhere.

    Rows of like size are solved together, smaller systems filled up with ones on the diagonal.
    """
    counts = inside.sum(1)
    order = counts.argsort(descending=True)
    at = 0
    while at < len(order):
        size = int(counts[order[at]])
        rows = order[at : at + max(1, CHUNK_BYTES // max(1, 16 * size * size))]
        at += len(rows)
        z = torch.zeros(len(rows), right.shape[1], dtype=right.dtype, device=right.device)
        if size:
            index, valid = positions(inside[rows])
            system = h[index[:, :, None], index[:, None, :]]
            system.masked_fill_(~(valid[:, :, None] & valid[:, None, :]), 0.0)
            system.diagonal(dim1=1, dim2=2).masked_fill_(~valid, 1.0)
            b = right[rows].gather(1, index) * valid
            factor = torch.linalg.cholesky(system)
            z.scatter_(1, index, torch.cholesky_solve(b[..., None], factor)[..., 0] * valid)
        yield rows, z


def joint_reference(weight: torch.Tensor, h: torch.Tensor, removed: torch.Tensor) -> torch.Tensor:
    """Row by row, as the first formula reads."""
    out = torch.zeros_like(weight)
    for i, row in enumerate(weight):
        k = torch.nonzero(~removed[i])[:, 0]
        out[i, k] = torch.linalg.solve(h[k][:, k], (h @ row)[k])
    return out


def joint_loss(weight: torch.Tensor, h: torch.Tensor, removed: torch.Tensor) -> torch.Tensor:
    """loss(M) of every row (m,)."""
    delta = weight - joint(weight, h, removed)
    return ((delta @ h) * delta).sum(1)
