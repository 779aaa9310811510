"""Log-probabilities of a student and its teacher over the same outcomes.

With the teacher's logits at hand the outcomes are the vocabulary. A cached teacher knows its k likeliest tokens and how
much probability the rest has together; then the student's rest is lumped too, and outcomes are k + 1. Lumping can only
lower a divergence (data processing inequality), and not at all when k is the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TopK:
    """A cached teacher: ``ids`` (n, k) int64, their log-probabilities (n, k), and the rest's together (n,)."""

    ids: Tensor
    logp: Tensor
    tail: Tensor

    def __getitem__(self, at: slice) -> TopK:
        return TopK(self.ids[at], self.logp[at], self.tail[at])

    def to(self, device: torch.device) -> TopK:
        return TopK(self.ids.to(device), self.logp.to(device), self.tail.to(device))


def log_probs(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / T) in float32 (float64 stays)."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return torch.log_softmax(wide / temperature if temperature != 1 else wide, dim=-1)


def lump(logp: Tensor, ids: Tensor) -> Tensor:
    """(n, k + 1): log-probabilities of ``ids`` (n, k) and, last, of everything else; (n, v) when k is v."""
    top = logp.gather(-1, ids)
    if ids.shape[-1] == logp.shape[-1]:
        return top
    rest = logp.scatter(-1, ids, float("-inf")).logsumexp(-1, keepdim=True)
    return torch.cat([top, rest], dim=-1)


def outcomes(teacher: TopK, vocabulary: int) -> Tensor:
    """The teacher's side of :func:`lump`, normalised again after its rounding on disk."""
    logp = teacher.logp.float()
    if logp.shape[-1] < vocabulary:
        logp = torch.cat([logp, teacher.tail.float()[:, None]], dim=-1)
    return torch.log_softmax(logp, dim=-1)


def top_k(logits: Tensor, k: int, temperature: float = 1.0) -> TopK:
    """What of the teacher's ``logits`` (n, v) is worth keeping."""
    logp = log_probs(logits, temperature)
    best, ids = logp.topk(k, dim=-1)
    lumped = lump(logp, ids)
    tail = lumped[:, -1] if lumped.shape[-1] > k else torch.full_like(best[:, 0], float("-inf"))
    return TopK(ids, best, tail)
