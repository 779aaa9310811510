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
times less memory. Time runs in chunks: memory (batch, heads of a group, chunk, n). The scan's arguments are read where
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
    """Mamba-2: x (b, t, h, p), dt (b, t, h) discretised, A (h,), B and C (b, t, g, n). Results (h, n).

    Group by group: its heads share B and C, which makes one product of many, and a chunk of them stays in the cache.
    """
    acc = torch.promote_types(x.dtype, torch.float32)
    heads = x.shape[2] // B.shape[2]
    groups = zip(*(torch.split(v, heads, dim) for v, dim in ((x, 2), (dt, 2), (A, 0))), strict=True)
    parts = []
    for g, (u, steps, a) in enumerate(groups):
        log = (steps.double() * a.double()).transpose(1, 2)
        u = (steps.to(acc)[..., None] * u.to(acc)).transpose(1, 2)
        parts.append(_group_energies(u, log, B[:, :, g].to(acc), C[:, :, g].to(acc), chunk))
    return Energies(*(torch.cat([getattr(p, what) for p in parts]) for what in ("energy", "control", "observe")))


def _group_energies(u: Tensor, log: Tensor, B: Tensor, C: Tensor, chunk: int) -> Energies:
    """The heads of one group: u (b, k, t, p), log decays (b, k, t), B and C (b, t, n). Results (k, n).

    Inside a chunk P_t = sum_s M[t, s] S_s + d_t P_before, with M the squared decays from s to t, d from the chunk's
    beginning to t, and S_s what step s adds. So sum_t C_t^2 P_t = sum_s S_s (M^T C^2)_s + ..., where M^T C^2 is the
    part of Q that the chunk itself sees: it serves both, and P is never formed.
    """
    b, k, t, p = u.shape
    n = B.shape[-1]
    energy, control, observe = (u.new_zeros(b, k, n, dtype=torch.float64) for _ in range(3))
    state, power = u.new_zeros(b, k, p, n), u.new_zeros(b, k, n)
    behind = []  # of every chunk: d of its end, sum of the squared decays to its end, a^2 Q of its first step
    for s in range(0, t, chunk):
        part = slice(s, s + chunk)
        cum, write, read = log[:, :, part].cumsum(2), B[:, part], C[:, part].square()
        begin = cum.exp().to(u.dtype)
        decay = _decay(cum, u.dtype)
        source, state = _source(u[:, :, part], decay, begin, write, state)
        M, d = decay.square_(), begin.square()
        seen = _shared(M.mT, read)
        control += _weighted(M.sum(2), source) + d.sum(2)[..., None] * power
        energy += (source * seen).sum(2) + (d @ read) * power
        observe += M.sum(3) @ read
        behind.append((d[:, :, -1, None], M[:, :, -1].sum(-1)[..., None], d[:, :, 0, None] * seen[:, :, 0]))
        power = (_weighted(M[:, :, -1], source) + d[:, :, -1, None] * power).clamp_min_(0)
    after = u.new_zeros(b, k, n)
    for through, rest, first in reversed(behind):
        observe += rest * after
        after = first + through * after
    return Energies(*(v.sum(0).clamp_min_(0) for v in (energy, control, observe)))


def _source(u: Tensor, decay: Tensor, begin: Tensor, write: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """S of one chunk (b, k, L, n), and the state after it. u (b, k, L, p), decay (b, k, L, L), begin (b, k, L), write
    (b, L, n), state (b, k, p, n)."""
    cross = _shared((u @ u.mT).mul_(decay.tril(-1)), write)
    cross.addcmul_(begin[..., None], u @ state)
    write_ = write[:, None]
    source = cross.mul_(2).addcmul_(u.square().sum(-1, keepdim=True), write_).mul_(write_)
    wrote = _shared((u * decay[:, :, -1, :, None]).mT, write)
    return source, wrote.addcmul_(begin[:, :, -1, None, None], state)


def _shared(a: Tensor, v: Tensor) -> Tensor:
    """a (b, k, r, L) times v (b, L, n), the same for every head: (b, k, r, n)."""
    return (a.flatten(1, 2) @ v).view(*a.shape[:3], v.shape[-1])


def _weighted(weights: Tensor, v: Tensor) -> Tensor:
    """sum over L of weights (b, k, L) times v (b, k, L, n): (b, k, n)."""
    return (weights[:, :, None] @ v)[:, :, 0]


def _decay(cum: Tensor, dtype: torch.dtype) -> Tensor:
    """exp(cum_t - cum_s) for s <= t, else 0: (b, k, L, L) from running log decays (b, k, L)."""
    future = torch.ones(cum.shape[-1], cum.shape[-1], dtype=torch.bool, device=cum.device).triu(1)
    return (cum[..., :, None] - cum[..., None, :]).to(dtype).masked_fill_(future, float("-inf")).exp_()


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
