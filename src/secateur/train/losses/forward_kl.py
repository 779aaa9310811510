"""Forward Kullback-Leibler divergence (Hinton et al., arXiv 1503.02531; the only loss of Minitron, arXiv 2408.11796).

    KL(p || q) = sum_v p_v (log p_v - log q_v)        p teacher, q student

It covers the teacher's modes: mass the student lacks is paid for. With a temperature T both sides are softmax(z / T)
and the caller scales by T^2, which keeps the gradient's size.
"""

from __future__ import annotations

from torch import Tensor


def forward_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """(n,) nats from log-probabilities (n, m). Outcomes the teacher rules out (-inf) cost nothing."""
    p = teacher.exp()
    return (p * (teacher - student).masked_fill(p == 0, 0)).sum(-1)
