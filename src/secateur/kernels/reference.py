"""Slow, plain, sequential references: one loop over time, in whatever dtype comes in. Tests compare the fast paths
with these."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def ssd_reference(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mamba-2 recurrence, shapes as in :func:`secateur.kernels.ssd.ssd_scan`."""
    b, t, h, p = x.shape
    g, n = B.shape[2:]
    state = x.new_zeros(b, h, p, n) if initial_state is None else initial_state
    outputs = []
    for i in range(t):
        Bi, Ci = (v[:, i].repeat_interleave(h // g, dim=1) for v in (B, C))
        decay = torch.exp(dt[:, i] * A)[..., None, None]
        state = decay * state + (dt[:, i, :, None] * x[:, i])[..., None] * Bi[:, :, None, :]
        outputs.append((state * Ci[:, :, None, :]).sum(-1))
    y = torch.stack(outputs, dim=1)
    return (y if D is None else y + D[:, None] * x), state


def conv_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, silu: bool = False) -> Tensor:
    """Causal depthwise convolution, shapes as in :func:`secateur.kernels.conv.causal_conv`."""
    b, c, t = x.shape
    width = weight.shape[1]
    padded = torch.cat([x.new_zeros(b, c, width - 1), x], dim=2)
    out = torch.stack([(padded[:, :, i : i + width] * weight).sum(-1) for i in range(t)], dim=2)
    out = out if bias is None else out + bias[:, None]
    return functional.silu(out) if silu else out


def selective_scan_reference(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mamba-1 recurrence, shapes as in :func:`secateur.kernels.selective_scan.selective_scan`."""
    b, t, d = x.shape
    state = x.new_zeros(b, d, A.shape[1]) if initial_state is None else initial_state
    outputs = []
    for i in range(t):
        state = torch.exp(dt[:, i, :, None] * A) * state + (dt[:, i] * x[:, i])[..., None] * B[:, i, None, :]
        outputs.append((state * C[:, i, None, :]).sum(-1))
    return torch.stack(outputs, dim=1), state


def delta_rule_reference(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, *, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gated delta rule, shapes as in :func:`secateur.kernels.delta.gated_delta_rule`; decay per head or per key
    channel."""
    b, t, hk, dk = k.shape
    h, dv = v.shape[2:]
    q, k = (z.repeat_interleave(h // hk, dim=2) for z in (q, k))
    log_decay = log_decay if log_decay.ndim == 4 else log_decay[..., None].expand(b, t, h, dk)
    state = v.new_zeros(b, h, dk, dv) if initial_state is None else initial_state
    outputs = []
    for i in range(t):
        state = state * log_decay[:, i, :, :, None].exp()
        read = (state * k[:, i, :, :, None]).sum(-2)
        state = state + k[:, i, :, :, None] * (beta[:, i, :, None] * (v[:, i] - read))[:, :, None, :]
        outputs.append((state * q[:, i, :, :, None]).sum(-2))
    return torch.stack(outputs, dim=1), state
