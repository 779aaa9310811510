"""A loss over all tokens whose largest intermediate exists for a few tokens at a time.

The loss is a sum over tokens, so its gradient by the hidden states and by the head is known as soon as a chunk's logits
are: both are computed in the forward pass, and the logits are dropped before the next chunk (the idea of Liger Kernel's
fused linear losses, arXiv 2410.10989, here through autograd and for any head). Memory: one chunk x vocabulary, plus the
gradients of the hidden states and of the head. Nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

ChunkLoss = Callable[[Tensor, slice], tuple[Tensor, Tensor]]
"""(hidden states (m, d) of the tokens in the slice, the slice) -> (scalar loss, parts (k,) to report)."""


def chunked_loss(hidden: Tensor, head: Sequence[Tensor], loss: ChunkLoss, *, chunk: int) -> tuple[Tensor, Tensor]:
    """(sum of the chunks' losses, sum of their parts) over ``hidden`` (n, d); only the first carries a gradient.

    ``head``: every tensor besides the hidden states through which ``loss`` shall be differentiated. Inside a block
    without gradients, only values are computed.
    """
    if not torch.is_grad_enabled():
        pieces = [loss(hidden[at], at) for at in _slices(len(hidden), chunk)]
        return torch.stack([p[0] for p in pieces]).sum(), torch.stack([p[1] for p in pieces]).sum(0)
    out: tuple[Tensor, Tensor] = _Chunked.apply(loss, chunk, tuple(head), hidden, *head)  # type: ignore[no-untyped-call]
    return out


def _slices(n: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, n)) for start in range(0, n, chunk)]


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, loss: ChunkLoss, chunk: int, inside: tuple[Tensor, ...], hidden: Tensor, *head: Tensor
    ) -> tuple[Tensor, Tensor]:
        # ``inside`` are the very tensors the loss reads, ``head`` the same ones as autograd sees them
        dhidden = torch.empty_like(hidden)
        dhead: list[Tensor | None] = [None] * len(head)
        total, parts = hidden.new_zeros((), dtype=torch.float32), None
        for at in _slices(len(hidden), chunk):
            with torch.enable_grad():
                piece = hidden[at].detach().requires_grad_()
                value, told = loss(piece, at)
                grads = torch.autograd.grad(value, [piece, *inside], allow_unused=True)
            dhidden[at] = 0 if grads[0] is None else grads[0]
            dhead = [_add(sum_, new) for sum_, new in zip(dhead, grads[1:], strict=True)]
            total += value.detach()
            parts = told.detach() if parts is None else parts + told.detach()
        ctx.gradients = (dhidden, *dhead)
        assert parts is not None
        ctx.mark_non_differentiable(parts)
        return total, parts

    @staticmethod
    def backward(ctx: Any, dloss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        return (None, None, None, *(None if g is None else g.mul_(dloss.to(g.dtype)) for g in gradients))


def _add(total: Tensor | None, new: Tensor | None) -> Tensor | None:
    if total is None or new is None:
        return new if total is None else total
    return total.add_(new)
