"""The chunked SSD scan where no gradient will be asked for: the formulas of :mod:`secateur.kernels.ssd`, ordered so
that the elementwise work on a chunk meets its numbers while they are still in the cache. Matrix products stay batched
over all chunks; nothing is kept for a backward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.kernels.layout import factors, grouped_rows, heads


def scan_forward(
    x: Tensor, step: Tensor, cum: Tensor, B: Tensor, C: Tensor, skip: Tensor, initial: Tensor, wild: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """x (b, t, h, p), step and skip (b, t, h), cum (N, L, h), B and C (b, t, g, n), initial (b, h, p, n), wild (N, h).

    Returns y (b, t, h, p) without the within-chunk part of wild pairs, the final state (b, h, p, n), and the scores
    (N * g, L, L), strictly lower triangular.
    """
    b, t, h, p = x.shape
    N, L, _ = cum.shape
    g, n = B.shape[2:]
    k, acc = h // g, step.dtype
    row, col, rest, start = (v.to(acc) for v in factors(cum, wild))
    chunks = x.reshape(N, L, g, k, p).transpose(1, 2)
    write, row, begin = (heads(v, g) for v in (col * step.reshape(N, L, h), row, start))
    u = x.new_empty(N, g, L, k, p)
    for out, piece, scale in zip(u, chunks, write, strict=True):
        # not in place: in float32 with one group the piece is x itself
        out.copy_(piece.to(acc, memory_format=torch.contiguous_format) * scale)
    u = u.view(N * g, L, k * p)
    Bm, Cm = grouped_rows(B, N, L), grouped_rows(C, N, L)
    before, state = _carry(
        torch.bmm(Bm.mT, u).view(b, N // b, g, n, k, p), start[:, -1].view(b, N // b, g, 1, k, 1),
        rest.view(b, N // b, g, 1, k, 1), initial,
    )  # fmt: skip
    scores = torch.bmm(Cm, Bm.mT).tril_(-1)
    inside = torch.bmm(scores, u).view(N, g, L, k, p)
    read = torch.bmm(Cm, before.view(N * g, n, k * p)).view(N, g, L, k, p)
    y = x.new_empty(N, L, g, k, p)
    by_head = heads(skip.reshape(N, L, h), g)
    for i, out in enumerate(y.transpose(1, 2)):
        sums = inside[i].to(acc).mul_(row[i])
        sums.addcmul_(read[i].to(acc), begin[i])
        out.copy_(sums.addcmul_(chunks[i].to(acc, memory_format=torch.contiguous_format), by_head[i]))
    return y.view(b, t, h, p), state.permute(0, 1, 3, 4, 2).contiguous().view(b, h, p, n), scores


def _carry(writes: Tensor, decay: Tensor, rest: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
    """States before every chunk, (b, c, g, n, k, p) in the dtype of ``writes``, and after the last, (b, g, n, k, p)."""
    b, c, g, _, k, p = writes.shape
    state = initial.view(b, g, k, p, -1).permute(0, 1, 4, 2, 3).clone(memory_format=torch.contiguous_format)
    before = torch.empty_like(writes)
    for i in range(c):
        before[:, i] = state
        state.mul_(decay[:, i]).addcmul_(writes[:, i].to(state.dtype), rest[:, i])
    return before, state
