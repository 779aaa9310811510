"""Squared distance between hidden states, relative to the teacher's size (L_is of Minitron, arXiv 2407.14679).

    sum (s - t)^2 / sum t^2

0 for equal states, 1 for a student that outputs nothing, on any layer and scale.
"""

from __future__ import annotations

from torch import Tensor


def hidden_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Scalar from (n, d) states."""
    s, t = student.float(), teacher.float()
    return (s - t).square().sum() / t.square().sum().clamp_min(1e-12)
