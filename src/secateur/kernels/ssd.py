"""Chunked state-space duality scan of Mamba-2 (SSD, arXiv 2405.21060), forward and hand-written backward.

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T        y_t = h_t C_t + D x_t

Glossary: b batch, t time, h heads, g groups, k = h / g heads in a group, p head channels, n state,
L chunk length, N = b * (t / L) chunks, cum = running sum of dt * A within a chunk (<= 0 for a decaying model).

How this differs from the usual torch form: the decay between positions i >= j of a chunk is
exp(cum_i - cum_j) = exp(cum_i - m) exp(m - cum_j) with m in the middle of the chunk's range. Applied as a row and a
column scale it leaves one score matrix C B^T per *group*, so B and C are never repeated per head and every product is
a large matrix product (bf16 matrix units apply). That is exact while the range stays within ``MAX_DECAY_RANGE``; the
(chunk, head) pairs beyond it take the pairwise form, so strongly forgetting heads are exact too. The diagonal i = j
carries no decay and is added elementwise, which keeps the gradient of the decays free of cancellation.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from secateur.kernels.decay import MAX_DECAY_RANGE, decay_
from secateur.kernels.layout import factors, grouped_rows, heads
from secateur.kernels.ssd_forward import scan_forward

CHUNK = 64
"""Positions per chunk; best of 32, 64 and 128 in whole layers (benchmarks/results/kernels.md): longer ones leave fewer
states to carry but more (chunk, head) pairs beyond the range that can be factored."""

BLOCK = 512
"""Positions per call of the scan proper: bounds its temporaries, and 10% faster than 2048 forward and backward."""


def discretize(
    dt: Tensor,
    bias: Tensor | None = None,
    *,
    softplus: bool = False,
    limit: tuple[float, float] = (0.0, math.inf),
) -> Tensor:
    """Time steps the way every Mamba-2 family of transformers takes them: add bias, softplus, clamp to ``limit``."""
    if bias is not None:
        dt = dt + bias.to(dt.dtype)
    if softplus:
        dt = functional.softplus(dt)
    return dt if limit == (0.0, math.inf) and softplus else dt.clamp(limit[0], limit[1])


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    initial_state: Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """Mamba-2 scan of a whole sequence.

    x (b, t, h, p); dt (b, t, h), already discretized; A (h,), negative; B and C (b, t, g, n) with g dividing h; D (h,);
    initial_state (b, h, p, n). Returns y (b, t, h, p) in x's dtype and the final state (b, h, p, n). Decays and
    states are fp32 (fp64 for fp64 inputs); matrix products run in x's dtype. The chunk length changes rounding only.
    """
    b, t, h, p = x.shape
    g, n = B.shape[2:]
    acc = torch.promote_types(x.dtype, torch.float32)
    # running sums reach thousands of nats where a head forgets fast; their differences must keep fp32 precision
    log_decay = dt.to(torch.float64) * A.to(torch.float64)
    step = dt.to(acc)
    diagonal = step * (B * C).sum(-1, dtype=acc).repeat_interleave(h // g, dim=2)
    skip = diagonal if D is None else diagonal + D.to(acc)
    L = min(chunk, t)
    pad = -t % L
    if pad:
        x, B, C = (functional.pad(v, (0, 0, 0, 0, 0, pad)) for v in (x, B, C))
        step, log_decay, skip = (functional.pad(v, (0, 0, 0, pad)) for v in (step, log_decay, skip))
    B, C = B.to(x.dtype), C.to(x.dtype)
    if initial_state is None:
        initial_state = x.new_zeros(b, h, p, n, dtype=acc)
    state, parts, size = initial_state.to(acc), [], max(BLOCK // L, 1) * L
    blocks = (torch.split(v, size, 1) for v in (x, step, log_decay, B, C, skip))
    for block in zip(*blocks, strict=True):
        y, state = _scan_block(block, state, L)
        parts.append(y)
    y = torch.cat(parts, 1) if len(parts) > 1 else y
    return (y[:, :t] if pad else y), state


def _scan_block(block: tuple[Tensor, ...], state: Tensor, L: int) -> tuple[Tensor, Tensor]:
    """A few whole chunks: x, steps, log decays, B, C and skip from ``state`` on. Returns y and the state after."""
    x, step, log_decay, B, C, skip = block
    cum = log_decay.reshape(-1, L, log_decay.shape[-1]).cumsum(1)
    with torch.no_grad():
        wild = (cum.amax(1) - cum.amin(1)) > MAX_DECAY_RANGE
    given = (x, step, cum, B, C, skip, state)
    if torch.is_grad_enabled() and any(v.requires_grad for v in given):
        y, state = _ChunkedScan.apply(*given, wild)  # type: ignore[no-untyped-call]
        return y, state
    y, state, scores = scan_forward(*given, wild)
    if wild.any():
        N, _, h = cum.shape
        pairs = _Pairwise(wild, cum, step.reshape(N, L, h), scores, B.shape[2])
        pairs.add(y.view(N, L, h, -1), pairs.forward(pairs.take(x.reshape(N, L, h, -1))))
    return y, state


class _Pairwise:
    """Within-chunk part of P (chunk, head) pairs whose decay range is too wide to factor: decays formed position by
    position."""

    def __init__(self, wild: Tensor, cum: Tensor, step: Tensor, scores: Tensor, g: int) -> None:
        """wild (N, h), cum and step (N, L, h), scores (N * g, L, L) strictly lower triangular."""
        self.chunk, self.head = wild.nonzero(as_tuple=True)
        L, h = cum.shape[1:]
        self.group = self.chunk * g + self.head // (h // g)
        self.step = step[self.chunk, :, self.head][:, None, :]
        c = cum[self.chunk, :, self.head]
        past = torch.ones(L, L, dtype=torch.bool, device=cum.device).tril(-1)
        self.decay = decay_((c[:, :, None] - c[:, None, :]).to(step.dtype).masked_fill_(~past, -math.inf))
        self.kernel = scores[self.group] * self.decay

    def take(self, v: Tensor) -> Tensor:
        """The pairs' slices (P, L, p) of a (N, L, h, p) tensor."""
        return v[self.chunk, :, self.head]

    def add(self, v: Tensor, part: Tensor) -> None:
        """Adds (P, L, ...) to the pairs' slices of (N, L, h, ...) in place; pairs are distinct, so nothing is lost."""
        v[self.chunk, :, self.head] += part.to(v.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return torch.bmm((self.kernel * self.step).to(x.dtype), x)

    def backward(self, x: Tensor, dy: Tensor, dscores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x (P, L, p), step and cum (P, L); adds to ``dscores`` in place."""
        dweights = torch.bmm(dy, x.mT).to(self.decay.dtype)
        dx = torch.bmm((self.kernel * self.step).to(x.dtype).mT, dy)
        dscores.index_add_(0, self.group, (dweights * self.decay).mul_(self.step).to(dscores.dtype))
        dweights.mul_(self.kernel)
        dstep = dweights.sum(1)
        dweights.mul_(self.step)
        return dx, dstep, dweights.sum(2) - dweights.sum(1)


def _grouped(v: Tensor, dtype: torch.dtype, N: int, L: int, g: int) -> Tensor:
    """(b, t, h, p) as (N, g, L, k, p), contiguous: elementwise results would inherit a transposed layout."""
    h, p = v.shape[2:]
    return v.reshape(N, L, g, h // g, p).transpose(1, 2).to(dtype, memory_format=torch.contiguous_format)


def _scale_state(state: Tensor, factor: Tensor, p: int) -> Tensor:
    """Multiplies (b, g, n, k p) by a factor per head (b, h) in place."""
    b, g, n, kp = state.shape
    state.view(b, g, n, kp // p, p).mul_(factor.view(b, g, 1, kp // p, 1))
    return state


class _ChunkedScan(torch.autograd.Function):
    """The whole scan. Saves the inputs, the chunk-start states and the factored part of the output."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        step: Tensor,
        cum: Tensor,
        B: Tensor,
        C: Tensor,
        skip: Tensor,
        initial: Tensor,
        wild: Tensor,
    ) -> tuple[Tensor, Tensor]:
        b, t, h, p = x.shape
        N, L, _ = cum.shape
        g, n = B.shape[2:]
        mm, acc = x.dtype, step.dtype
        row, col, rest, start = (v.to(acc) for v in factors(cum, wild))
        xg = _grouped(x, acc, N, L, g)
        u = (xg * heads(col * step.reshape(N, L, h), g)).to(mm).reshape(N * g, L, -1)
        Bm, Cm = grouped_rows(B, N, L), grouped_rows(C, N, L)
        states = _carry_states(torch.bmm(Bm.mT, u).view(b, N // b, g, n, -1), start[:, -1], rest, initial)
        scores = torch.bmm(Cm, Bm.mT).tril_(-1)
        shape = (N, g, L, h // g, p)
        y = torch.bmm(scores, u).view(shape).to(acc).mul_(heads(row, g))
        before = states[:, :-1].to(mm).reshape(N * g, n, -1)
        y.addcmul_(torch.bmm(Cm, before).view(shape).to(acc), heads(start, g))
        ctx.save_for_backward(x, step, cum, B, C, skip, states, wild, y.to(mm))
        out = torch.addcmul(y, xg, heads(skip.reshape(N, L, h), g)).to(mm).transpose(1, 2).contiguous().view(N, L, h, p)
        if wild.any():
            pairs = _Pairwise(wild, cum, step.reshape(N, L, h), scores, g)
            pairs.add(out, pairs.forward(pairs.take(x.reshape(N, L, h, p))))
        final = states[:, -1].view(b, g, n, h // g, p).permute(0, 1, 3, 4, 2).contiguous().view(b, h, p, n)
        return out.view(b, t, h, p), final

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dfinal: Tensor) -> tuple[Tensor | None, ...]:
        x, step, cum, B, C, skip, states, wild, y = ctx.saved_tensors
        b, t, h, p = x.shape
        N, L, _ = cum.shape
        g, n = B.shape[2:]
        mm, acc = x.dtype, step.dtype
        row, col, rest, start = (v.to(acc) for v in factors(cum, wild))
        xg, dyg = _grouped(x, acc, N, L, g), _grouped(dy, acc, N, L, g)
        write = heads(col * step.reshape(N, L, h), g)
        u = (xg * write).to(mm).reshape(N * g, L, -1)
        Bm, Cm = grouped_rows(B, N, L), grouped_rows(C, N, L)
        d_inside = (dyg * heads(row, g)).to(mm).reshape(N * g, L, -1)
        d_read = (dyg * heads(start, g)).to(mm).reshape(N * g, L, -1)
        dstates, dtotal, dinitial = _carry_gradient(
            torch.bmm(Cm.mT, d_read).view(b, N // b, g, n, -1), start[:, -1], states, dfinal
        )
        dwrite = _scale_state(dstates.view(N, g, n, -1), rest, p).to(mm).view(N * g, n, -1)
        scores = torch.bmm(Cm, Bm.mT).tril_(-1)
        dscores = torch.bmm(d_inside, u.mT).tril_(-1)
        extra = _pairwise_gradient(wild, cum, step, scores, x, dy, dscores)
        before = states[:, :-1].to(mm).reshape(N * g, n, -1)
        dC = torch.baddbmm(torch.bmm(dscores, Bm), d_read, before.mT)
        dB = torch.baddbmm(torch.bmm(dscores.mT, Cm), u, dwrite.mT)
        du = torch.baddbmm(torch.bmm(scores.mT, d_inside), Bm, dwrite).view_as(xg).to(acc)

        def per_head(v: Tensor) -> Tensor:
            return v.sum(-1).transpose(1, 2).contiguous().view(N, L, h)

        dcol = per_head(du * xg) * col
        dcum = per_head(dyg * y.to(acc)) - dcol * step.reshape(N, L, h)
        dcum[:, -1] += dtotal
        dskip = per_head(dyg * xg).view_as(skip)
        dx = (
            torch.addcmul(dyg * heads(skip.reshape(N, L, h), g), du, write)
            .transpose(1, 2)
            .to(mm)
            .contiguous()
            .view(b, t, h, p)
        )
        if extra is not None:
            pairs, parts = extra
            for total, part in zip((dx.view(N, L, h, p), dcol, dcum), parts, strict=True):
                pairs.add(total, part)
        dB, dC = (v.view(N, g, L, n).transpose(1, 2).reshape(B.shape) for v in (dB, dC))
        return dx, dcol.reshape(step.shape), dcum.to(cum.dtype), dB, dC, dskip, dinitial, None


def _pairwise_gradient(
    wild: Tensor, cum: Tensor, step: Tensor, scores: Tensor, x: Tensor, dy: Tensor, dscores: Tensor
) -> tuple[_Pairwise, tuple[Tensor, Tensor, Tensor]] | None:
    """The wild pairs' gradients of x, step and cum, to be added to the factored ones; ``dscores`` grows in place."""
    if not wild.any():
        return None
    N, L, h = cum.shape
    pairs = _Pairwise(wild, cum, step.reshape(N, L, h), scores, scores.shape[0] // N)
    x, dy = (pairs.take(v.reshape(N, L, h, -1)) for v in (x, dy.to(x.dtype)))
    return pairs, pairs.backward(x, dy, dscores)


def _carry_states(writes: Tensor, decay: Tensor, rest: Tensor, initial: Tensor) -> Tensor:
    """Runs the recurrence over chunks: states (b, c + 1, g, n, k p) before every chunk and after the last."""
    b, c, g, n, kp = writes.shape
    h, p = initial.shape[1:3]
    decay, rest = decay.view(b, c, g, 1, h // g, 1), rest.view(b, c, g, 1, h // g, 1)
    states = decay.new_empty(b, c + 1, g, n, h // g, p)
    states[:, 0] = initial.view(b, g, h // g, p, n).permute(0, 1, 4, 2, 3)
    states[:, 1:] = writes.view(b, c, g, n, h // g, p)
    states[:, 1:].mul_(rest)
    for i in range(c):
        states[:, i + 1].addcmul_(states[:, i], decay[:, i])
    return states.view(b, c + 1, g, n, kp)


def _carry_gradient(dread: Tensor, decay: Tensor, states: Tensor, dfinal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reverse recurrence: gradients of the states after each chunk (b, c, g, n, k p), of each chunk's total log decay
    (N, h), and of the initial state (b, h, p, n)."""
    b, c, g, n, kp = dread.shape
    h, p = dfinal.shape[1:3]
    decay = decay.view(b, c, g, 1, h // g, 1)
    split = (b, c, g, n, h // g, p)
    dread = dread.to(decay.dtype).view(split)
    after = decay.new_empty(split)
    after[:, -1] = dfinal.view(b, g, h // g, p, n).permute(0, 1, 4, 2, 3)
    for i in range(c - 1, 0, -1):
        torch.addcmul(dread[:, i], after[:, i], decay[:, i], out=after[:, i - 1])
    dtotal = (after * states[:, 1:].view(split)).sum((3, 5)).view(b * c, h)
    dinitial = torch.addcmul(dread[:, 0], after[:, 0], decay[:, 0]).permute(0, 1, 3, 4, 2).reshape(b, h, p, n)
    return after.view(b, c, g, n, kp), dtotal, dinitial
