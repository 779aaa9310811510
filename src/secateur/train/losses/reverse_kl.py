"""Reverse Kullback-Leibler divergence (MiniLLM, Gu et al., arXiv 2306.08543).

    KL(q || p) = sum_v q_v (log q_v - log p_v)        p teacher, q student

It seeks a mode: mass the teacher lacks is paid for, tails of the teacher may be left out.
"""

from __future__ import annotations

import torch
from torch import Tensor


def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """(n,) nats from log-probabilities (n, m); the teacher's are bounded below at the smallest float."""
    floor = torch.finfo(teacher.dtype).tiny
    return (student.exp() * (student - teacher.clamp_min(torch.tensor(floor, dtype=teacher.dtype).log().item()))).sum(
        -1
    )
