"""Channel statistics at the inputs and outputs of every linear and the outputs of every norm.

Glossary: ``a[b, t, j]`` activation of channel j at token t of sample b.

    l2mean[j] = sum_b ( mean_t |a[b, t, j]| )^2     "mean over the sequence, L2 over the batch" of arXiv 2407.14679
    sum[j]    = sum_bt a[b, t, j]
    sumsq[j]  = sum_bt a[b, t, j]^2

All three add up over batches and ranks. Shapes: one vector of the channels' length per place, float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from secateur.anatomy import layout as lo
from secateur.calibrate.walker import Layer


class Channels:
    """Observes weights of two dimensions (inputs and outputs) and norm weights (outputs)."""

    def __init__(self) -> None:
        self.state: dict[str, torch.Tensor] = {}

    def __repr__(self) -> str:
        return "Channels(v1)"

    def attach(self, layer: Layer) -> list[Any]:
        """Hook every sub-module that holds an observed tensor; fused experts are left to their own observer."""
        handles = []
        for _, _, name, layout in layer.anatomy.layer_tensors(layer.index):
            module = layer.module(name) if "{" not in name else None
            weight = getattr(module, "weight", None)
            if module is None or not isinstance(weight, torch.Tensor) or not name.endswith(".weight"):
                continue
            if lo.norm_extent(layout, layer.anatomy.sizes) is not None or layout.norm == "ln":
                handles.append(module.register_forward_hook(self._look(layer.index, name, sides=("out",))))
            elif weight.ndim == 2 and isinstance(module, nn.Linear):
                handles.append(module.register_forward_hook(self._look(layer.index, name, sides=("in", "out"))))
        return handles

    def _look(self, layer: int, name: str, sides: tuple[str, ...]) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            for side in sides:
                a = args[0] if side == "in" else out
                if isinstance(a, torch.Tensor):
                    self._add(f"{layer}/{name}/{side}", a)

        return hook

    def _add(self, key: str, a: torch.Tensor) -> None:
        if a.ndim == 2:  # tokens already flattened: each row its own sample would change the aggregation
            a = a[None]
        a = a.detach().reshape(a.shape[0], -1, a.shape[-1])
        wide = a.to(torch.float32)
        self._sum(f"{key}/l2mean", wide.abs().mean(1).double().square().sum(0))
        self._sum(f"{key}/sum", wide.sum((0, 1), dtype=torch.float64))
        self._sum(f"{key}/sumsq", wide.square().sum((0, 1), dtype=torch.float64))

    def _sum(self, key: str, value: torch.Tensor) -> None:
        self.state[key] = self.state[key] + value if key in self.state else value

    def block(self, layer: Layer, before: torch.Tensor, after: torch.Tensor) -> None:
        """Nothing here: see :class:`secateur.calibrate.blocks.BlockInfluence`."""
