"""Causal depthwise convolution as a sum of shifted products, optionally followed by SiLU; forward and hand-written
backward.

On a CPU oneDNN's depthwise kernel does it in one pass, if it is handed the layout it is written for. Elsewhere, and in
float64, as many multiply-adds over the whole sequence as the kernel has taps (2 to 4 in state-space models) beat a
general convolution. The pre-activation is recomputed in the backward pass instead of stored.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, silu: bool = False) -> Tensor:
    """Depthwise convolution that sees the present and ``width - 1`` past positions, zeros before the first.

    x (b, c, t), weight (c, width), bias (c,); returns (b, c, t) in x's dtype, sums in fp32 (fp64 for fp64 inputs); SiLU
    is taken of the sums rounded to x's dtype where one pass makes them, as transformers' own code does. Fastest when x
    is a transposed view of a contiguous (b, t, c), the layout projections produce; the result is such a view.
    """
    out: Tensor = _ShiftedSum.apply(x.transpose(1, 2).contiguous(), weight, bias, silu)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2)


def _onednn() -> bool:
    found: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return found


def _one_pass(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether oneDNN takes these as they are."""
    narrow = x.dtype in (torch.float32, torch.bfloat16) and all(
        v.dtype == x.dtype for v in (weight, bias) if v is not None
    )
    return narrow and x.is_cpu and _onednn()


def _sum(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Sums over the taps in x's dtype: x (b, t, c), weight (c, width), bias (c,)."""
    if _one_pass(x, weight, bias):
        # (b, t, c) is the layout of a row of t pixels with the channels last
        row, taps = x.transpose(1, 2).unsqueeze(2), weight[:, None, None]
        out = functional.conv2d(row, taps, bias, padding=(0, weight.shape[1] - 1), groups=x.shape[2])
        return out[:, :, 0, : x.shape[1]].transpose(1, 2)
    taps = weight.t().to(x.dtype, memory_format=torch.contiguous_format)
    out = x * taps[-1]
    if bias is not None:
        out.add_(bias.to(x.dtype))
    for shift in range(1, min(len(taps), x.shape[1])):
        out[:, shift:].addcmul_(x[:, :-shift], taps[-1 - shift])
    return out


class _ShiftedSum(torch.autograd.Function):
    """(b, t, c) in and out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.silu = silu
        wide = x if _one_pass(x, weight, bias) else x.to(torch.promote_types(x.dtype, torch.float32))
        out = _sum(wide, weight, bias)
        return (functional.silu(out) if silu else out).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        acc = torch.promote_types(x.dtype, torch.float32)
        wide, taps = x.to(acc), weight.t().to(acc, memory_format=torch.contiguous_format)
        dout = dy.to(acc, memory_format=torch.contiguous_format)
        if ctx.silu:
            before = _sum(wide, weight.to(acc), None if bias is None else bias.to(acc))
            dout = torch.ops.aten.silu_backward(dout, before)
        dx, dtaps = dout * taps[-1], torch.zeros_like(taps)
        dtaps[-1] = (dout * wide).sum((0, 1))
        for shift in range(1, min(len(taps), x.shape[1])):
            dx[:, :-shift].addcmul_(dout[:, shift:], taps[-1 - shift])
            dtaps[-1 - shift] = (dout[:, shift:] * wide[:, :-shift]).sum((0, 1))
        dbias = None if bias is None else dout.sum((0, 1)).to(bias.dtype)
        return dx.to(x.dtype), dtaps.t().to(weight.dtype), dbias, None
