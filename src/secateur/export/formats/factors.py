"""A weight as the product of two thin ones, multiplied in float64 and rounded once.

Parts: ``left`` (matrices, m, r), ``right`` (matrices, r, d). Where a sum is rounded in another order the last bit of a
float64 differs, which moves a bfloat16 or float32 only on a tie; the checksum in the manifest tells.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch


def unpack(parts: Mapping[str, torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """(matrices, m, d)."""
    return torch.stack([multiplied(a, b) for a, b in zip(parts["left"], parts["right"], strict=True)]).to(dtype)


def multiplied(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Stored factors -> weight, float64: the one way it is done, so that it can be done again to the last bit."""
    return left.double() @ right.double()
