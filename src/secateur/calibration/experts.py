"""What routed experts do with the tokens they get.

transformers holds the experts of a layer in one module with stacked matrices, called with tokens, choices and router
weights; its inside is recomputed here expert by expert.

Glossary: ``r[t, e]`` router weight (0 where expert e was not chosen), ``u[t, e, j]`` what its second matrix reads,
``y[t, e]`` what it puts out, ``b`` samples of T tokens.

    tokens[e]    = number of tokens sent to e
    norm[e]      = sum_t r[t, e] || y[t, e] ||_2
    l2mean[e, j] = sum_b ( 1/T sum_{t in b} |r u[t, e, j]| )^2
    sum[e, j]    = sum_t r u[t, e, j]        sumsq[e, j] = sum_t (r u[t, e, j])^2

State: ``"<layer>/experts/out/tokens"`` and ``".../norm"`` of shape (E,), ``"<layer>/experts/in/l2mean"`` etc. of shape
(E * fe,), float64. Cost: the experts' forward pass once more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from secateur.anatomy import layout as lo
from secateur.calibration.observer import Layer


class Experts:
    """Observes the fused experts module of every layer that has one."""

    def __init__(self) -> None:
        self.state: dict[str, torch.Tensor] = {}
        self._samples = 1

    def __repr__(self) -> str:
        return "Experts(v1)"

    def attach(self, layer: Layer) -> list[Any]:
        """Hook the module whose matrices have the sizes that the experts' layouts give."""
        module = fused(layer)
        if module is None:
            return []
        hook = module.register_forward_pre_hook(lambda m, args: self._add(layer.index, m, *args))
        return [layer.block.register_forward_pre_hook(self._note), hook]

    def _note(self, block: nn.Module, args: tuple[Any, ...]) -> None:
        self._samples = args[0].shape[0]

    @torch.no_grad()
    def _add(self, layer: int, module: Any, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> None:
        """hidden (samples * T, width); chosen and weights (samples * T, experts per token)."""
        hidden = hidden.reshape(-1, hidden.shape[-1])
        length = len(hidden) // self._samples
        experts, width = module.down_proj.shape[0], _inner_width(module)
        per_sample = hidden.new_zeros(self._samples, experts, width, dtype=torch.float64)
        total, squares = (hidden.new_zeros(experts, width, dtype=torch.float64) for _ in range(2))
        tokens, norm = (hidden.new_zeros(experts, dtype=torch.float64) for _ in range(2))
        for e in range(experts):
            row, slot = torch.where(chosen == e)
            if not len(row):
                continue
            inner, out = run_expert(module, e, hidden[row])
            share = weights[row, slot, None].double()
            read = share * inner.double()
            per_sample[:, e].index_add_(0, row // length, read.abs() / length)
            total[e], squares[e] = read.sum(0), read.square().sum(0)
            tokens[e], norm[e] = len(row), (share * out.double()).norm(dim=-1).sum()
        self._sum(f"{layer}/experts/out/tokens", tokens)
        self._sum(f"{layer}/experts/out/norm", norm)
        self._sum(f"{layer}/experts/in/l2mean", per_sample.square().sum(0).flatten())
        self._sum(f"{layer}/experts/in/sum", total.flatten())
        self._sum(f"{layer}/experts/in/sumsq", squares.flatten())

    def _sum(self, key: str, value: torch.Tensor) -> None:
        self.state[key] = value + self.state[key].to(value.device) if key in self.state else value

    def block(self, layer: Layer, before: torch.Tensor, after: torch.Tensor) -> None:
        """Nothing here: the experts' own inputs say it all."""


def fused(layer: Layer) -> nn.Module | None:
    """The module that holds the routed experts of a layer, None where there are none."""
    sizes = layer.anatomy.sizes
    routed = any({"E", "fe"} <= _axes(name, layout) for _, _, name, layout in layer.anatomy.layer_tensors(layer.index))
    if not routed:
        return None
    for module in layer.block.modules():
        down = getattr(module, "down_proj", None)
        if isinstance(down, torch.Tensor) and down.ndim == 3 and down.shape[0] == sizes["E"]:
            return module if sizes["fe"] == _inner_width(module) else None
    return None


def _axes(name: str, layout: lo.Layout) -> set[str]:
    return {*layout.axes, *(["E"] if "{E}" in name else [])}


def _inner_width(module: Any) -> int:
    return int(module.down_proj.shape[1 if module.is_transposed else 2])


def run_expert(module: Any, e: int, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(what the second matrix reads, what it puts out) of expert ``e``; shapes (tokens, fe), (tokens, width)."""
    first = "gate_up_proj" if module.has_gate else "up_proj"
    wide = _linear(module, first, e, hidden)
    inner = module._apply_gate(wide) if module.has_gate else module.act_fn(wide)
    return inner, _linear(module, "down_proj", e, inner)


def _linear(module: Any, name: str, e: int, x: torch.Tensor) -> torch.Tensor:
    weight: torch.Tensor = getattr(module, name)[e]
    out = x @ (weight if module.is_transposed else weight.T)
    return out + getattr(module, f"{name}_bias")[e] if module.has_bias else out
