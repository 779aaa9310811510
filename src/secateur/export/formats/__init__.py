"""How a tensor can lie on disk in fewer bytes: one format a file, each able to say what its parts stand for.

A format is ``unpack(parts, dtype) -> matrices``: parts as named by who wrote them, all with a leading dimension that
counts the matrices of the tensor (1, or the experts that are stacked in it); returns (matrices, outputs, inputs) in
``dtype``, the same bits whenever and wherever it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from secateur.export.formats import bitmap, factors

Unpack = Callable[[Mapping[str, torch.Tensor], torch.dtype], torch.Tensor]

FORMATS: dict[str, Unpack] = {
    "factors": factors.unpack,
    "bitmap": bitmap.unpack,
}
