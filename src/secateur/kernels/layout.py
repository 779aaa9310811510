"""Layouts of the chunked SSD scan (glossary in :mod:`secateur.kernels.ssd`), shared by its two orders of work."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from secateur.kernels.decay import decay_


def heads(v: Tensor, g: int) -> Tensor:
    """(N, L, h) per-head factors as (N, g, L, k, 1), to scale tensors of the grouped layout before it flattens."""
    N, L, h = v.shape
    return v.view(N, L, g, h // g).transpose(1, 2).unsqueeze(-1)


def grouped_rows(v: Tensor, N: int, L: int) -> Tensor:
    """(b, t, g, n) as contiguous (N * g, L, n)."""
    g, n = v.shape[2:]
    return v.reshape(N, L, g, n).transpose(1, 2).reshape(N * g, L, n)


def factors(cum: Tensor, wild: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Row scale of the within-chunk part, column scale, their shared remainder per chunk, and decay from the chunk's
    start.

    A wild pair gets row scale 0 (its within-chunk part is added elsewhere) and a column scale taken from the chunk's
    end, which cannot overflow.
    """
    total = cum[:, -1]
    middle = torch.where(wild, total, (cum.amax(1) + cum.amin(1)) / 2)
    row = (cum - middle[:, None]).masked_fill_(wild[:, None], -math.inf)
    return decay_(row), decay_(middle[:, None] - cum), decay_(total - middle), decay_(cum.clone())
