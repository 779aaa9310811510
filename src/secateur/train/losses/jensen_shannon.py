"""Jensen-Shannon divergence (Lin 1991; generalised for distillation by GKD, Agarwal et al., arXiv 2306.13649).

    JS(p, q) = KL(p || m) / 2 + KL(q || m) / 2,  m = (p + q) / 2

Symmetric and at most log 2: a token on which teacher and student disagree wholly weighs no more than that.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def jensen_shannon(student: Tensor, teacher: Tensor) -> Tensor:
    """(n,) nats from log-probabilities (n, m)."""
    middle = torch.logaddexp(student, teacher) - math.log(2)
    p = teacher.exp()
    return ((p * (teacher - middle).masked_fill(p == 0, 0)).sum(-1) + (student.exp() * (student - middle)).sum(-1)) / 2
