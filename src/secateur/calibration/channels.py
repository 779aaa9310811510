"""Channel statistics at the inputs and outputs of every linear and the outputs of every norm.

Glossary: ``a[b, t, j]`` activation of channel j at token t of sample b.

    l2mean[j] = sum_b ( mean_t |a[b, t, j]| )^2     "mean over the sequence, L2 over the batch" of arXiv 2407.14679
    sum[j]    = sum_bt a[b, t, j]
    sumsq[j]  = sum_bt a[b, t, j]^2

All three add up over batches and ranks, and none depends on how samples are batched. Shapes: one vector per place, as
long as there are channels, float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from secateur.anatomy import layout as lo
from secateur.calibration.observer import Layer

ROWS = 16
"""Rows added up at a time: of 21,504 channels 1.4 MB; 16 and 32 were the fastest of 8 to 128."""


class Channels:
    """Observes weights of two dimensions (inputs and outputs) and norm weights (outputs).

    ``input_first``: tensors of modules that store matrices as (inputs, outputs), which no layout says.
    """

    def __init__(self) -> None:
        self.state: dict[str, torch.Tensor] = {}
        self.input_first: set[str] = set()
        self._samples = 1

    def __repr__(self) -> str:
        return "Channels(v2)"

    def attach(self, layer: Layer) -> list[Any]:
        """Hook every sub-module that holds an observed tensor; fused experts are left to their own observer."""
        from transformers.pytorch_utils import Conv1D

        handles = [layer.block.register_forward_pre_hook(self._note)]
        for _, _, name, layout in layer.anatomy.layer_tensors(layer.index):
            module = holder(layer, name, layout)
            if module is None:
                continue
            if lo.norm_extent(layout, layer.anatomy.sizes) is not None or layout.norm == "ln":
                handles.append(module.register_forward_hook(self._look(layer.index, name, sides=("out",))))
            elif isinstance(module, nn.Linear | Conv1D):
                handles.append(module.register_forward_hook(self._look(layer.index, name, sides=("in", "out"))))
                if isinstance(module, Conv1D):
                    self.input_first.add(name)
        return handles

    def _note(self, block: nn.Module, args: tuple[Any, ...]) -> None:
        """Modules behind a router see tokens without their samples, so the count is taken at the block's door."""
        self._samples = args[0].shape[0]

    def _look(self, layer: int, name: str, sides: tuple[str, ...]) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            for side in sides:
                a = args[0] if side == "in" else out
                if isinstance(a, torch.Tensor):
                    self._add(f"{layer}/{name}/{side}", a)

        return hook

    def _add(self, key: str, a: torch.Tensor) -> None:
        for sample in a.detach().reshape(self._samples, -1, a.shape[-1]):
            absolute, plain, square = sums(sample)
            self._sum(f"{key}/l2mean", (absolute / len(sample)).square())
            self._sum(f"{key}/sum", plain)
            self._sum(f"{key}/sumsq", square)

    def _sum(self, key: str, value: torch.Tensor) -> None:
        self.state[key] = value + self.state[key].to(value.device) if key in self.state else value

    def block(self, layer: Layer, before: torch.Tensor, after: torch.Tensor) -> None:
        """Nothing here: see :class:`secateur.calibration.blocks.BlockInfluence`."""


def sums(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums over the rows of |a|, a and a^2, for a (tokens, channels): each (channels,), float64.

    A few rows at a time are added up in float32 (float64 for float64) while they are in the cache, and those sums in
    float64: five times faster than casting all of ``a``, and off by 1e-7 at the most.
    """
    acc = torch.promote_types(a.dtype, torch.float32)
    total = a.new_zeros(3, a.shape[-1], dtype=torch.float64)
    for rows in torch.split(a, ROWS):
        rows = rows.to(acc)
        for into, values in zip(total, (rows.abs(), rows, rows.square()), strict=True):
            into += values.sum(0)
    return total[0], total[1], total[2]


def holder(layer: Layer, name: str, layout: lo.Layout) -> nn.Module | None:
    """The sub-module whose weight is the on-disk tensor ``name``, None where it is fused away or no weight.

    transformers moves some modules when it loads; the longest ending of the name that fits one module, and one of the
    right shape, is then taken to be it.
    """
    shared = layer.anatomy.shared_users
    path = name.replace("{S}", str(shared.index(layer.index))) if layer.index in shared else name
    if not path.endswith(".weight") or "{" in path:
        return None
    parts, shape = path.split(".")[:-1], lo.shape(layout, layer.anatomy.sizes)
    fitting = {n: m for n, m in layer.block.named_modules() if _fits(m, shape)}
    for start in range(len(parts)):
        ending = ".".join(parts[start:])
        found = [m for n, m in fitting.items() if n == ending or n.endswith(f".{ending}")]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _fits(module: nn.Module, shape: tuple[int, ...]) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and tuple(weight.shape) == shape
