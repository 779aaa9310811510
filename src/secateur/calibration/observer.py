"""What stands beside a walk: a loaded layer, and what looks on while text runs through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy


@dataclass(frozen=True, slots=True)
class Layer:
    """One loaded decoder layer as observers see it. ``kinds``: its sub-blocks, in order.

    ``reload``: fills the block from disk again, and from what the walk was told has changed.
    """

    index: int
    kinds: tuple[str, ...]
    block: nn.Module
    anatomy: Anatomy
    reload: Callable[[], object] = lambda: None

    def module(self, name: str) -> nn.Module | None:
        """The sub-module that holds the on-disk tensor ``name`` (relative to the layer), None when it is fused away."""
        path = name.rpartition(".")[0]
        try:
            return self.block.get_submodule(path)
        except AttributeError:
            return None

    def part(self, name: str, label: str) -> tuple[int, slice]:
        """(tensor dimension, slice) of a labelled part of a tensor: ``part("mixer.in_proj.weight", "x")``."""
        for _, _, pattern, layout in self.anatomy.layer_tensors(self.index):
            if pattern == name:
                dim, start, stop = lo.labels(layout, self.anatomy.sizes)[label]
                return dim, slice(start, stop)
        raise KeyError(f"layer {self.index} has no tensor {name!r}")


class Observer(Protocol):
    """Collects statistics while blocks run.

    ``state`` holds tensors that add up over batches and ranks; it is what the journal saves and ranks reduce.
    """

    state: dict[str, torch.Tensor]

    def attach(self, layer: Layer) -> list[Any]:
        """Register hooks on the layer; returns their handles."""
        ...

    def block(self, layer: Layer, before: torch.Tensor, after: torch.Tensor) -> None:
        """Look at the residual stream around the layer. Shapes (batch, tokens, hidden)."""
        ...


class Enough(Exception):  # noqa: N818  # no error: a way out of the block
    """Raised by an observer from inside a block: it has seen all it wants of this batch, what comes behind need not be
    computed. Only a lone observer of a walk that edits may, since the outputs are then computed after the edit."""
