"""The fast paths behind the names and signatures that transformers' modeling files call.

``KERNELS`` is the whole registry: the name of a stock function, and its stand-in. The stand-in's own parameters say
what the stock function must take for the replacement to be faithful; what a stand-in does not cover (packed
sequences) goes to the stock function.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from secateur.kernels.conv import causal_conv
from secateur.kernels.delta import CHUNK, chunk_for, gated_delta_rule
from secateur.kernels.selective_scan import selective_scan
from secateur.kernels.ssd import discretize, ssd_scan


def conv1d(hidden_states: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
    """hidden_states (b, c, t), weight (c, width)."""
    silu = activation in ("silu", "swish")
    out = causal_conv(hidden_states, weight, bias, silu=silu)
    if silu or activation is None:
        return out
    from transformers.activations import ACT2FN  # a second of imports that only rare activations need

    activated: Tensor = ACT2FN[activation](out)
    return activated


def mamba2_scan(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int = 0,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """``chunk_size`` is ignored: the length changes rounding only, and ours is chosen for speed."""
    steps = discretize(dt, dt_bias, softplus=dt_softplus, limit=(float(dt_limit[0]), float(dt_limit[1])))
    y, state = ssd_scan(hidden_states, steps, A, B, C, D=D, initial_state=initial_states)
    return (y, state) if return_final_states else y


def mamba_scan(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """hidden_states, dt and z (b, d, t); B and C (b, n, t)."""
    dt = dt if delta_bias is None else dt + delta_bias.to(dt.dtype)[:, None]
    dt = functional.softplus(dt) if delta_softplus else dt
    x = hidden_states.mT
    y, state = selective_scan(x, dt.mT, A, B.mT, C.mT)
    y = y if D is None else y + x * D
    y = y if z is None else y * functional.silu(z.mT)
    out = y.to(hidden_states.dtype).mT
    return (out, state) if return_last_state else out


def delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """query and key (b, t, j, dk), value (b, t, h, dv), g (b, t, h) or (b, t, h, dk)."""
    chunk = CHUNK if g.ndim == 3 else chunk_for(g)
    if chunk is None:
        return NotImplemented  # type: ignore[no-any-return]
    acc = torch.promote_types(query.dtype, torch.float32)
    q, k = query.to(acc), key.to(acc)
    if use_qk_l2norm_in_kernel:
        q, k = (v * torch.rsqrt(v.square().sum(-1, keepdim=True) + 1e-6) for v in (q, k))
    q = q * q.shape[-1] ** -0.5
    out, state = gated_delta_rule(q, k, value, g, beta, initial_state=initial_state, chunk=chunk)
    return out.to(query.dtype), state if output_final_state else None


@dataclass(frozen=True)
class Kernel:
    """A stand-in for a function of transformers; it returns NotImplemented for inputs that the stock function takes."""

    run: Callable[..., Any]

    @property
    def parameters(self) -> frozenset[str]:
        """The arguments it reads; a stock function that lacks one of them is another function of the same name."""
        return frozenset(inspect.signature(self.run).parameters)

    def fits(self, stock: Any) -> bool:
        """Whether the stock function takes every argument that the stand-in reads."""
        return self.parameters <= set(inspect.signature(inspect.unwrap(stock)).parameters)

    def replacing(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        """The stand-in for this very ``stock`` function; arguments it has no use for are dropped, as the stock
        functions do."""
        known = self.parameters

        @functools.wraps(stock)
        def fast(*args: Any, **kwargs: Any) -> Any:
            if kwargs.get("cu_seqlens") is not None or kwargs.get("seq_idx") is not None:
                return stock(*args, **kwargs)
            out = self.run(*args, **{name: value for name, value in kwargs.items() if name in known})
            return stock(*args, **kwargs) if out is NotImplemented else out

        return fast


KERNELS: dict[str, Kernel] = {
    "causal_conv1d_fn": Kernel(conv1d),
    "mamba2_chunk_scan": Kernel(mamba2_scan),
    "mamba_selective_scan": Kernel(mamba_scan),
    "torch_chunk_gated_delta_rule": Kernel(delta_rule),
    "chunk_kimi_delta_attention": Kernel(delta_rule),
}
