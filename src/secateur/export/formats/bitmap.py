"""A tensor with many zeros: one bit for every entry, and the entries that are not zero.

Parts: ``mask`` (1, ceil(n / 8)) uint8 over the n entries in order, lowest bit first; ``values`` (1, kept); ``count``
(1,): n. An entry is kept when its *bits* are not all zero, so minus zero survives. At 2:4 this is as small as values
with indices: two indices of two bits for every four entries are four bits, as many as the mask has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

_SAME_SIZE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def pack(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """The parts of ``tensor``."""
    flat = tensor.contiguous().reshape(-1)
    kept = _kept(flat)
    mask = np.packbits(kept.numpy(), bitorder="little")
    return {"mask": torch.from_numpy(mask)[None], "values": flat[kept][None], "count": torch.tensor([len(flat)])}


def shapes(tensor: torch.Tensor) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Dtype and shape of the parts, without making them."""
    kept = int(_kept(tensor.contiguous().reshape(-1)).sum())
    return {
        "mask": (torch.uint8, (1, math.ceil(tensor.numel() / 8))),
        "values": (tensor.dtype, (1, kept)),
        "count": (torch.int64, (1,)),
    }


def unpack(parts: Mapping[str, torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """(1, n)."""
    bits = np.unpackbits(parts["mask"][0].numpy(), count=int(parts["count"]), bitorder="little")
    out = torch.zeros(len(bits), dtype=dtype)
    out[torch.from_numpy(bits.astype(bool))] = parts["values"][0].to(dtype)
    return out[None]


def _kept(flat: torch.Tensor) -> torch.Tensor:
    return flat.view(_SAME_SIZE[flat.dtype.itemsize]) != 0
