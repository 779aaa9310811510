"""What every entry of an SSM state carries: controllability, observability, output energy.

Glossary: ``h_t[p, n]`` state of one head (of one channel in Mamba-1, where p = 1), ``a_t`` its decay (in Mamba-1 one
per n), ``u_t = dt_t x_t``, ``B_t`` what writes and ``C_t`` what reads it.

    P_t[n] = sum_p h_t[p, n]^2                       how far inputs move entry n: controllability
    Q_t[n] = C_t[n]^2 + a_{t+1}^2 Q_{t+1}[n]         how much of it outputs see from t on: observability
    energy = sum_t P_t[n] C_t[n]^2                   squared output that passes through entry n

GHOST (arXiv 2602.11408) prunes Mamba-2 states by controllability times observability; only its abstract was available,
so the recursions here are derived from the model's equations. Statistics, sums over tokens, float64, one value per
(head or channel, n): ``"<layer>/states/out/energy"``, ``".../control"`` (sum of P), ``".../observe"`` (sum of Q).

For Mamba-2 no state is formed for every t: P obeys a linear recurrence of its own,

    P_t[n] = a_t^2 P_{t-1}[n] + 2 a_t B_t[n] <u_t, h_{t-1}[:, n]> + |u_t|^2 B_t[n]^2

whose middle term is attention-like inside a chunk (scores <u_t, u_s>), so everything is a matrix product and costs p
times less memory. Time runs in chunks: memory (batch, heads, chunk, n). The scan's arguments are read where
transformers calls it; native kernels of a GPU are not seen.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from secateur.calibration.observer import Layer
from secateur.kernels.adapters import Kernel
from secateur.kernels.context import fast
from secateur.kernels.ssd import discretize

CHUNK = 64
CHANNEL_CHUNK = 16


@dataclass(frozen=True, slots=True)
class Energies:
    """Sums over batch and time, shape (heads or channels, n), float64."""

    energy: Tensor
    control: Tensor
    observe: Tensor


class States:
    """Observes the scans of every SSM layer."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}

    def __repr__(self) -> str:
        return "States(v1)"

    def attach(self, layer: Layer) -> list[Any]:
        """Stand between the mixers and their scan until the handle is removed."""
        stack = ExitStack()
        watchers = {"mamba2_chunk_scan": Kernel(self._heads(layer)), "mamba_selective_scan": Kernel(self._chans(layer))}
        stack.enter_context(fast(layer.block, watchers))
        return [_Handle(stack)]

    def _heads(self, layer: Layer) -> Any:
        def watch(
            hidden_states: Tensor,
            dt: Tensor,
            A: Tensor,
            B: Tensor,
            C: Tensor,
            dt_bias: Tensor | None = None,
            dt_softplus: bool = False,
            dt_limit: tuple[float, float] = (0.0, float("inf")),
        ) -> Any:
            steps = discretize(dt, dt_bias, softplus=dt_softplus, limit=(float(dt_limit[0]), float(dt_limit[1])))
            self._add(layer.index, head_energies(hidden_states, steps, A, B, C))
            return NotImplemented  # the scan itself is the stock function's business

        return watch

    def _chans(self, layer: Layer) -> Any:
        def watch(
            hidden_states: Tensor,
            dt: Tensor,
            A: Tensor,
            B: Tensor,
            C: Tensor,
            delta_bias: Tensor | None = None,
            delta_softplus: bool = False,
        ) -> Any:
            dt = dt if delta_bias is None else dt + delta_bias.to(dt.dtype)[:, None]
            steps = functional.softplus(dt) if delta_softplus else dt
            self._add(layer.index, channel_energies(hidden_states.mT, steps.mT, A, B.mT, C.mT))
            return NotImplemented

        return watch

    def _add(self, layer: int, found: Energies) -> None:
        for what in ("energy", "control", "observe"):
            key, value = f"{layer}/states/out/{what}", getattr(found, what).flatten()
            self.state[key] = value + self.state[key].to(value.device) if key in self.state else value

    def block(self, layer: Layer, before: Tensor, after: Tensor) -> None:
        """Nothing here: the scans say it all."""


class _Handle:
    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack

    def remove(self) -> None:
        self.stack.close()


@torch.no_grad()
def head_energies(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk: int = CHUNK) -> Energies:
    """Mamba-2: x (b, t, h, p), dt (b, t, h) discretised, A (h,), B and C (b, t, g, n). Results (h, n)."""
    b, t, h, p = x.shape
    n, per = B.shape[3], h // B.shape[2]
    acc = torch.promote_types(x.dtype, torch.float32)
    u = (dt.to(acc)[..., None] * x.to(acc)).transpose(1, 2)
    log = (dt.double() * A.double()).transpose(1, 2)
    B, C = (v.to(acc).transpose(1, 2) for v in (B, C))
    energy, control, observe = (x.new_zeros(h, n, dtype=torch.float64) for _ in range(3))
    state, power = x.new_zeros(b, h, p, n, dtype=acc), x.new_zeros(b, h, 1, n, dtype=acc)
    for s in range(0, t, chunk):
        part = slice(s, s + chunk)
        write, read = (v[:, :, part].repeat_interleave(per, 1) for v in (B, C))
        powers, state = _powers(u[:, :, part], log[:, :, part].cumsum(2), write, state, power)
        power = powers[:, :, -1:]
        control += powers.sum((0, 2), dtype=torch.float64)
        energy += (powers * read.square()).sum((0, 2), dtype=torch.float64)
    after = x.new_zeros(b, h, 1, n, dtype=acc)
    for s in reversed(range(0, t, chunk)):
        part = slice(s, s + chunk)
        seen, after = _seen(log[:, :, part], C[:, :, part].repeat_interleave(per, 1).square(), after)
        observe += seen.sum((0, 2), dtype=torch.float64)
    return Energies(energy, control, observe)


def _powers(u: Tensor, cum: Tensor, write: Tensor, state: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
    """P of one chunk (b, h, L, n) and the state after it. u (b, h, L, p), cum (b, h, L), write (b, h, L, n)."""
    between = _decay(cum, u.dtype)
    scores = (u @ u.mT) * between.tril(-1)
    cross = scores @ write + cum.exp().to(u.dtype)[..., None] * (u @ state)
    source = 2 * write * cross + u.square().sum(-1, keepdim=True) * write.square()
    powers = between.square() @ source + (2 * cum).exp().to(u.dtype)[..., None] * power
    last = between[:, :, -1, :, None]
    state = (u * last).mT @ write + cum[:, :, -1].exp().to(u.dtype)[..., None, None] * state
    return powers.clamp_min(0), state


def _seen(log: Tensor, squares: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Q of one chunk (b, h, L, n), and what its first entry hands to the chunk before: a^2 Q."""
    cum = log.cumsum(2)
    between = _decay(cum, squares.dtype).square().mT
    rest = (2 * (cum[:, :, -1:] - cum)).exp().to(squares.dtype)[..., None]
    seen = between @ squares + rest * after
    return seen, (2 * log[:, :, :1]).exp().to(squares.dtype)[..., None] * seen[:, :, :1]


def _decay(cum: Tensor, dtype: torch.dtype) -> Tensor:
    """exp(cum_t - cum_s) for s <= t, else 0: (b, h, L, L) from running log decays (b, h, L)."""
    past = torch.ones(cum.shape[-1], cum.shape[-1], dtype=torch.bool, device=cum.device).tril()
    return (cum[..., :, None] - cum[..., None, :]).masked_fill(~past, float("-inf")).exp().to(dtype)


@torch.no_grad()
def channel_energies(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk: int = CHANNEL_CHUNK) -> Energies:
    """Mamba-1: x and dt (b, t, d), dt discretised, A (d, n), B and C (b, t, n). Results (d, n)."""
    b, t, _ = x.shape
    acc = torch.promote_types(x.dtype, torch.float32)
    u, dt, A, B, C = (dt * x).to(acc), dt.to(acc), A.to(acc), B.to(acc)[:, :, None], C.to(acc)[:, :, None]
    energy, control, observe = (x.new_zeros(*A.shape, dtype=torch.float64) for _ in range(3))
    state = x.new_zeros(b, *A.shape, dtype=acc)
    for s in range(0, t, chunk):
        part = slice(s, s + chunk)
        states = u[:, part, :, None] * B[:, part]
        decay = (dt[:, part, :, None] * A).exp()
        for i in range(states.shape[1]):
            state = states[:, i].addcmul_(decay[:, i], state)
        state = state.clone()  # the chunk is squared in place
        states.square_()
        control += states.sum((0, 1), dtype=torch.float64)
        energy += (states * C[:, part].square()).sum((0, 1), dtype=torch.float64)
    after = x.new_zeros(b, *A.shape, dtype=acc)
    for s in reversed(range(0, t, chunk)):
        part = slice(s, s + chunk)
        squared = (2 * dt[:, part, :, None] * A).exp()
        seen = C[:, part].square().expand_as(squared).clone()
        for i in reversed(range(seen.shape[1])):
            after = seen[:, i].add_(after) * squared[:, i]
        observe += seen.sum((0, 1), dtype=torch.float64)
    return Energies(energy, control, observe)
