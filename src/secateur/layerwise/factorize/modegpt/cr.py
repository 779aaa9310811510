"""MoDeGPT, type II: fewer channels of queries and keys (CR decomposition; arXiv 2408.09632).

Glossary: ``q_i, k_i`` channel i of the queries and keys of one head, ``Cq, Ck`` (e, e) their Gram matrices. The columns
of C^(1/2) have the lengths sqrt(C_ii), so only diagonals are needed:

    score_i = sqrt(Cq_ii Ck_ii)          summed over the query heads that share a key head;  the largest stay

With rotary positions channels (i, i + e/2) turn together and stay or go together. The energy of such a pair,
Cq_ii + Cq_jj, is the same before and after the turn, so it is taken for the pair where MoDeGPT adds two scores taken
after it. No closed-form correction belongs to this type.
"""

from __future__ import annotations

import torch
from torch import Tensor


def channel_scores(queries: Tensor, keys: Tensor, *, pairs: bool) -> Tensor:
    """Scores (e,) of one key head. ``queries`` (r, e), ``keys`` (e,): sums of squares; both of a pair get its score."""
    q, k = queries.double(), keys.double()
    if pairs:
        q, k = _paired(q), _paired(k)
    return (q * k).clamp(min=0).sqrt().sum(0)


def kept_channels(scores: Tensor, keep: int, *, pairs: bool) -> Tensor:
    """Sorted indices of the ``keep`` best channels; with ``pairs`` whole pairs (``keep`` rounded down to even)."""
    if not pairs:
        return scores.argsort(descending=True, stable=True)[:keep].sort().values
    half = len(scores) // 2
    first = scores[:half].argsort(descending=True, stable=True)[: keep // 2].sort().values
    return torch.cat([first, first + half])


def _paired(energy: Tensor) -> Tensor:
    """(.., e) -> (.., e): the energy of the pair (i, i + e/2) at both of its places."""
    a, b = energy.chunk(2, dim=-1)
    return torch.cat([a + b, a + b], dim=-1)
