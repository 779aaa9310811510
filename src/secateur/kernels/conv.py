"""Causal depthwise convolution as a sum of shifted products, optionally followed by SiLU; forward and hand-written
backward.

Kernels of state-space models are 2 to 4 taps wide: as many fused multiply-adds over the whole sequence beat a general
convolution. The pre-activation is recomputed in the backward pass instead of stored.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, silu: bool = False) -> Tensor:
    """Depthwise convolution that sees the present and ``width - 1`` past positions, zeros before the first.

    x (b, c, t), weight (c, width), bias (c,); returns (b, c, t) in x's dtype, sums in fp32 (fp64 for fp64 inputs).
    Fastest when x is a transposed view of a contiguous (b, t, c), the layout projections produce; the result is such
    a view.
    """
    out: Tensor = _ShiftedSum.apply(x.transpose(1, 2).contiguous(), weight, bias, silu)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2)


def _sum(x: Tensor, taps: Tensor, bias: Tensor | None) -> Tensor:
    """x (b, t, c), taps (width, c), both in the accumulation dtype."""
    out = x * taps[-1]
    if bias is not None:
        out.add_(bias)
    for shift in range(1, min(len(taps), x.shape[1])):
        out[:, shift:].addcmul_(x[:, :-shift], taps[-1 - shift])
    return out


class _ShiftedSum(torch.autograd.Function):
    """(b, t, c) in and out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.silu = silu
        acc = torch.promote_types(x.dtype, torch.float32)
        out = _sum(
            x.to(acc), weight.t().to(acc, memory_format=torch.contiguous_format), None if bias is None else bias.to(acc)
        )
        return (functional.silu(out, inplace=True) if silu else out).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        acc = torch.promote_types(x.dtype, torch.float32)
        wide, taps = x.to(acc), weight.t().to(acc, memory_format=torch.contiguous_format)
        dout = dy.to(acc, memory_format=torch.contiguous_format)
        if ctx.silu:
            dout = torch.ops.aten.silu_backward(dout, _sum(wide, taps, None if bias is None else bias.to(acc)))
        dx, dtaps = dout * taps[-1], torch.zeros_like(taps)
        dtaps[-1] = (dout * wide).sum((0, 1))
        for shift in range(1, min(len(taps), x.shape[1])):
            dx[:, :-shift].addcmul_(dout[:, shift:], taps[-1 - shift])
            dtaps[-1 - shift] = (dout[:, shift:] * wide[:, :-shift]).sum((0, 1))
        dbias = None if bias is None else dout.sum((0, 1)).to(bias.dtype)
        return dx.to(x.dtype), dtaps.t().to(weight.dtype), dbias, None
