"""The slow reference of :mod:`secateur.calibration.states`: the recursions as written, step by step."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.calibration.states import Energies


def energies_reference(u: Tensor, decay: Tensor, B: Tensor, C: Tensor) -> Energies:
    """u (b, t, h, p); decay, B and C (b, t, h, n), already repeated for heads that share them. Results (h, n)."""
    b, t, h, p = u.shape
    n = B.shape[-1]
    state, states = u.new_zeros(b, h, p, n), []
    for i in range(t):
        state = decay[:, i, :, None] * state + u[:, i, ..., None] * B[:, i, :, None]
        states.append(state)
    energy, control, observe = (u.new_zeros(h, n, dtype=torch.float64) for _ in range(3))
    seen = u.new_zeros(b, h, n)
    for i in reversed(range(t)):
        seen = C[:, i].square() + (decay[:, i + 1].square() * seen if i + 1 < t else 0)
        observe += seen.sum(0)
        control += states[i].square().sum((0, 2))
        energy += (states[i] * C[:, i, :, None]).square().sum((0, 2))
    return Energies(energy, control, observe)
