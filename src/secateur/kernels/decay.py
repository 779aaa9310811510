"""Decays from their logarithms, in the range where the numbers behave."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

MAX_DECAY_RANGE = 80.0
"""Nats within a chunk up to which exp(c_i - c_j) may be factored into exp(c_i - m) exp(m - c_j), m in the middle.
exp(+-40) times activations and gradients stays inside fp32 and bf16, whose exponents are the same."""

NEGLIGIBLE = -50.0
"""Nats. Decays below exp(-50) are taken as 0: they are lost beside the undecayed present in any dtype, and left alone
they turn into denormal numbers, which slow matrix products down severalfold."""


def decay(log: Tensor) -> Tensor:
    """exp with negligible results exactly 0, differentiable."""
    return functional.threshold(log, NEGLIGIBLE, -math.inf).exp()


def decay_(log: Tensor) -> Tensor:
    """The same in place, without a gradient."""
    return torch.threshold_(log, NEGLIGIBLE, -math.inf).exp_()
