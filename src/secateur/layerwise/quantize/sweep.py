"""The column sweep of GPTQ (arXiv 2210.17323): settle a column, spread its error over the columns to its right.

    e_j = (w_j - q_j) / U_jj        W[:, j+1:] -= e_j U[j, j+1:]        H^-1 = U^T U, U upper triangular

For whatever values q the caller chooses, sum_j ||e_j||^2 = tr((W - Q) H (W - Q)^T): the sweep knows its own error.
Shapes: W (m, d), U (d, d), both float64. In blocks, columns right of a block are told once, by one matrix product; the
plain form is :func:`sweep_reference`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Choose = Callable[[int, Tensor], Tensor]
"""(column j, weights of columns j.. as they are now, transposed: (rest of the block, m)) -> column j's values (m,)."""


def sweep(weight: Tensor, upper: Tensor, choose: Choose, *, block: int = 128) -> tuple[Tensor, float]:
    """(Q (m, d), sum of squared errors). ``choose`` sees columns up to the end of the block that j is in."""
    w = weight.T.contiguous()  # a column of W is a row here: contiguous
    out, total, d = torch.empty_like(w), 0.0, w.shape[0]
    for start in range(0, d, block):
        stop = min(start + block, d)
        errors = torch.empty_like(w[start:stop])
        for j in range(start, stop):
            out[j] = choose(j, w[j:stop])
            errors[j - start] = (w[j] - out[j]) / upper[j, j]
            w[j + 1 : stop] -= torch.outer(upper[j, j + 1 : stop], errors[j - start])
        w[stop:] -= upper[start:stop, stop:].T @ errors
        total += float(errors.square().sum())
    return out.T.contiguous(), total


def sweep_reference(weight: Tensor, upper: Tensor, choose: Choose) -> tuple[Tensor, float]:
    """The same without blocks: every column tells all columns to its right at once. Slow."""
    w, out, total = weight.clone(), torch.empty_like(weight), 0.0
    for j in range(w.shape[1]):
        out[:, j] = choose(j, w[:, j:].T)
        e = (w[:, j] - out[:, j]) / upper[j, j]
        w[:, j + 1 :] -= e[:, None] * upper[j, j + 1 :]
        total += float(e.square().sum())
    return out, total
