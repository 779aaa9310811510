"""An embedding that holds only the rows that are looked up: a vocabulary is the largest matrix of many models.

``w[ids]`` for the ids of the text is a few thousand rows of a hundred thousand. The module keeps its own forward
(scaling, casts); only its weight shrinks and a hook renumbers the ids.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from secateur.errors import UsageError
from secateur.model import Model

PIECE = 16 << 20
"""Bytes of the table read at once."""


class Rows:
    """``module``: an embedding whose weight is not loaded; ``size``: entries of its table."""

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module
        self._whole, self._padding = self.module.weight, getattr(module, "padding_idx", None)
        self._ids = torch.zeros(0, dtype=torch.long)
        self._handle: Any = None

    def load(self, table: torch.Tensor, ids: torch.Tensor) -> None:
        """Hold ``table``, whose rows are those of the sorted ``ids``."""
        self._ids = ids.to(table.device)
        self.module.weight = nn.Parameter(table, requires_grad=False)
        self.module.padding_idx = None  # torch checks it against the number of rows; only gradients need it
        if self._handle is None:
            self._handle = self.module.register_forward_pre_hook(self._renumber)

    def restore(self) -> None:
        """The module as it was, ready for its whole table."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        self.module.weight, self.module.padding_idx = self._whole, self._padding

    def _renumber(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        ids = args[0]
        places = torch.searchsorted(self._ids, ids).clamp_max_(len(self._ids) - 1)
        if not torch.equal(self._ids[places], ids):
            raise UsageError("a token was looked up whose row of the embedding was not loaded")
        return (places, *args[1:])


def read_rows(model: Model, name: str, ids: torch.Tensor) -> torch.Tensor:
    """Rows ``ids`` (sorted, int64) of a table on disk, in its own dtype; at most ``PIECE`` bytes beside them."""
    info = model.weights.tensors[name]
    found = torch.empty(len(ids), *info.shape[1:], dtype=info.torch_dtype)
    step = max(1, PIECE * info.shape[0] // max(1, info.nbytes))
    at = 0
    while at < len(ids):
        first = int(ids[at])
        end = int(torch.searchsorted(ids, first + step))
        found[at:end] = model.read_rows(name, first, int(ids[end - 1]) + 1)[ids[at:end] - first]
        at = end
    return found


__all__ = ["Rows", "read_rows"]
