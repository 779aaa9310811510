"""The column sweep of SparseGPT (arXiv 2301.00774) and GPTQ (arXiv 2210.17323): settle a column, spread its error over
the columns to its right.

    e_j = (w_j - q_j) / U_jj        W[:, j+1:] -= e_j U[j, j+1:]        H^-1 = U^T U, U upper triangular

For whatever values q the caller chooses, sum_j ||e_j||^2 = tr((W - Q) H (W - Q)^T): the sweep knows its own error.
Shapes: W (m, d), U (d, d); the sweep computes in the dtype of W. Columns right of a block are told once, by one matrix
product, and so are those right of a part of a block; the plain form is :func:`sweep_reference`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from secateur.layerwise.gram import Factor

Settle = Callable[[int, Tensor], Tensor]
"""(column j, weights of columns j.. as they are now, transposed: (rest of the block, m)) -> column j's values (m,)."""

_PART = 32


def sweep(weight: Tensor, factor: Factor, settle: Settle, *, step: int = 1, block: int = 128) -> tuple[Tensor, float]:
    """(Q (m, d), sum of squared errors). ``factor``: see Gram.sweep, in the dtype of ``weight``.

    ``settle`` may rely on ``step`` columns from j on (or up to the end of the block) when j is a whole number of steps
    into a block, on column j alone elsewhere.
    """
    w, d = weight.T.contiguous(), weight.shape[1]  # a column of W is a row here: contiguous
    rows, scale = factor.rows, factor.scale
    out, total, part = torch.empty_like(w), 0.0, _aligned(step)
    for start in range(0, d, block):
        stop = min(start + block, d)
        deltas = torch.empty_like(w[start:stop])
        for first in range(start, stop, part):
            last = min(first + part, stop)
            for j in range(first, last):
                out[j] = settle(j, w[j:stop])
                delta = torch.sub(w[j], out[j], out=deltas[j - start])
                w[j + 1 : last].addr_(rows[j, j + 1 : last], delta, alpha=-1)
            w[last:stop].addmm_(rows[first:last, last:stop].T, deltas[first - start : last - start], alpha=-1)
        w[stop:].addmm_(rows[start:stop, stop:].T, deltas, alpha=-1)
        total += float((deltas / scale[start:stop, None]).square().sum())
    return out.T.contiguous(), total


def _aligned(step: int) -> int:
    """Columns of a part: a whole number of steps, or a whole part of one."""
    if step >= _PART:
        return _PART if step % _PART == 0 else step
    return _PART // step * step


def sweep_reference(weight: Tensor, factor: Factor, settle: Settle) -> tuple[Tensor, float]:
    """The same without blocks: every column tells all columns to its right at once. Slow."""
    upper = factor.upper()
    w, out, total = weight.clone(), torch.empty_like(weight), 0.0
    for j in range(w.shape[1]):
        out[:, j] = settle(j, w[:, j:].T)
        e = (w[:, j] - out[:, j]) / upper[j, j]
        w[:, j + 1 :] -= e[:, None] * upper[j, j + 1 :]
        total += float(e.square().sum())
    return out, total
