"""Cross-entropy with the text itself: the language-modelling loss.

    CE = -log q_y        y the next token

Minitron (arXiv 2407.14679) finds distillation better without it; it is the baseline, the teacher correction, and a mix.
"""

from __future__ import annotations

import torch
from torch import Tensor

IGNORE = -100
"""Label of a position that has no next token."""


def cross_entropy(student: Tensor, labels: Tensor) -> Tensor:
    """(n,) nats from log-probabilities (n, v) and labels (n,); 0 where the label is IGNORE."""
    picked = student.gather(-1, labels.clamp_min(0)[:, None])[:, 0]
    return torch.where(labels == IGNORE, torch.zeros_like(picked), -picked)
