"""Seeing a linear's inputs through its weight: whatever is multiplied with it.

Modules are the wrong place to look. transformers' Mamba-1 reads ``dt_proj.weight`` itself, the RG-LRU multiplies raw
parameters, others may follow; a hook on such a module never runs. A watched weight is a tensor that tells of every
product it takes part in and behaves like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

#: Told the inputs (.., inputs), and whether the weight stands as (inputs, outputs) in that product.
Note = Callable[[torch.Tensor, bool], None]

_LINEAR = {torch.nn.functional.linear}
_PRODUCT = {torch.matmul, torch.mm, torch.bmm, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.mm}
_PRODUCT |= {torch.Tensor.bmm}
_ADDED = {torch.addmm, torch.baddbmm, torch.Tensor.addmm, torch.Tensor.baddbmm}


class Watched(torch.Tensor):
    """A weight that tells ``note`` what it is multiplied with."""

    note: Note

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _LINEAR and isinstance(args[1], cls):
            args[1].note(args[0], False)
        elif func in _PRODUCT and isinstance(args[1], cls):
            args[1].note(args[0], True)
        elif func in _PRODUCT and isinstance(args[0], cls):
            args[0].note(args[1].transpose(-1, -2), False)
        elif func in _ADDED and isinstance(args[2], cls):
            args[2].note(args[1], True)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


class Watch:
    """Watches one parameter until removed."""

    def __init__(self, module: nn.Module, attribute: str, note: Note) -> None:
        self.module, self.attribute = module, attribute
        weight: Any = module._parameters[attribute]
        self.weight = weight
        watched: Any = torch.Tensor._make_subclass(Watched, weight.detach())
        watched.note = note
        module._parameters[attribute] = watched

    def remove(self) -> None:
        """The parameter as it was."""
        self.module._parameters[self.attribute] = self.weight
