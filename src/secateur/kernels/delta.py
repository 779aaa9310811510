"""Chunked gated delta rule (arXiv 2412.06464); decay per head, or per key channel as in Kimi Linear (arXiv 2510.26692).

    S_t = (I - beta_t k_t k_t^T) Diag(exp(g_t)) S_{t-1} + beta_t k_t v_t^T        o_t = S_t^T q_t

b batch, t time, h value heads, j key heads, r = h / j, L chunk length, c = t / L chunks, dk and dv key and value
channels. Within a chunk the rank-one updates are condensed by one triangular solve (the UT transform); between chunks
runs a loop of four matrix products. Scores are formed once per key head and shared by its r value heads. Plain
differentiable torch operations throughout: no assignment into slices, whose backward pass copies the whole tensor once
per chunk.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from secateur.kernels.decay import MAX_DECAY_RANGE, decay

CHUNK = 64
"""Positions per chunk."""


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    *,
    initial_state: Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """Gated delta rule over a whole sequence; q and k come normalized and scaled.

    q and k (b, t, j, dk); v (b, t, h, dv) with j dividing h; log_decay (b, t, h), or (b, t, h, dk) where every chunk's
    range must be within ``MAX_DECAY_RANGE`` (:func:`chunk_for` finds such a chunk); beta (b, t, h); initial_state
    (b, h, dk, dv). Returns the output (b, t, h, dv) and the final state (b, h, dk, dv), both in fp32 (fp64 for fp64
    inputs).
    """
    acc = torch.promote_types(v.dtype, torch.float32)
    b, t, j, dk = k.shape
    h, dv = v.shape[2:]
    L = min(chunk, t)
    pad = -t % L

    def chunks(x: Tensor, heads: int) -> Tensor:
        """(b, t, heads, w) as (b, j, heads / j, c, L, w)."""
        x = functional.pad(x.to(acc), (0, 0, 0, 0, 0, pad))
        return x.reshape(b, -1, L, j, heads // j, x.shape[-1]).permute(0, 3, 4, 1, 2, 5).contiguous()

    q, k, v, beta = chunks(q, j), chunks(k, j), chunks(v, h), chunks(beta.unsqueeze(-1), h)
    cum = chunks(log_decay if log_decay.ndim == 4 else log_decay.unsqueeze(-1), h).cumsum(-2)
    attention, system = _scores(q, k, cum)
    grow, total = decay(cum), cum[..., -1:, :]
    solved = torch.linalg.solve_triangular(
        system * beta, torch.cat([v * beta, k * beta * grow], -1), upper=False, unitriangular=True
    )
    new, read = solved.split([dv, dk], -1)
    inputs = (new, read, q * grow, (k * decay(total - cum)).mT, attention, decay(total).mT)
    state = v.new_zeros(b, h, dk, dv) if initial_state is None else initial_state.to(acc)
    state = state.reshape(b, j, h // j, dk, dv)
    outputs = []
    for u, w, qi, ki, scores, keep in zip(*(x.unbind(3) for x in inputs), strict=True):
        update = u - w @ state
        outputs.append(qi @ state + scores @ update)
        state = state * keep + ki @ update
    out = torch.stack(outputs, 3).permute(0, 3, 4, 1, 2, 5).reshape(b, -1, h, dv)
    return out[:, :t], state.reshape(b, h, dk, dv)


def _scores(q: Tensor, k: Tensor, cum: Tensor) -> tuple[Tensor, Tensor]:
    """Decayed lower triangular q k^T and k k^T, (b, j, r, c, L, L)."""
    L = q.shape[-2]
    if cum.shape[-1] == 1:
        future = torch.ones(L, L, dtype=torch.bool, device=q.device).triu(1)
        pairs = decay((cum - cum.mT).masked_fill(future, -math.inf))
        return (q @ k.mT) * pairs, (k @ k.mT) * pairs
    middle = ((cum.amax(-2, keepdim=True) + cum.amin(-2, keepdim=True)) / 2).detach()
    ahead, behind = (cum - middle).exp(), (k * (middle - cum).exp()).mT
    return ((q * ahead) @ behind).tril(), ((k * ahead) @ behind).tril()


def chunk_for(log_decay: Tensor) -> int | None:
    """Longest chunk of 64, 32 and 16 whose decay range can be factored, or None; log_decay (b, t, h, dk)."""
    for chunk in (64, 32, 16):
        padded = functional.pad(log_decay.detach().float(), (0, 0, 0, 0, 0, -log_decay.shape[1] % chunk))
        spread = padded.view(len(padded), -1, chunk, *padded.shape[2:])[:, :, 1:].sum(2)
        if float(spread.amin()) >= -MAX_DECAY_RANGE:
            return chunk
    return None
