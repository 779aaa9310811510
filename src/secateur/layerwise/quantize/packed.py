"""What a quantised linear is on disk: codes, scales, zeros; and the Solution made of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from secateur.layerwise.base import Problem, Solution
from secateur.layerwise.quantize.grids import Format, Grid


def solution(problem: Problem, codes: Tensor, grid: Grid, form: Format, **notes: object) -> Solution:
    """``codes`` (m, d) whole numbers, ``grid`` of (m, groups). The weight is computed in the dtype of the file, as a
    loader does."""
    m, d = codes.shape
    groups = grid.scale.shape[1]
    parts = {
        "codes": codes.to(torch.int8),
        "scale": grid.scale.to(problem.dtype),
        "bits": torch.tensor(form.bits),
    }
    if not form.symmetric:
        parts["zero"] = grid.zero.to(torch.int8)
    weight = dense(parts).double()
    nbytes = packed_bytes(m, d, groups, form, problem.dtype.itemsize)
    noted = {"bits": form.bits, "group": d // groups if form.group else 0, "symmetric": form.symmetric, **notes}
    return Solution(weight, parts, problem.error(weight), nbytes, noted)


def dense(parts: dict[str, Tensor]) -> Tensor:
    """The weight (m, d) that codes, scales and zeros stand for, in the dtype of the scales."""
    codes, scale = parts["codes"], parts["scale"]
    m, d = codes.shape
    c = codes.to(scale.dtype).reshape(m, scale.shape[1], -1)
    if "zero" in parts:
        c = c - parts["zero"].to(scale.dtype)[..., None]
    return (c * scale[..., None]).reshape(m, d)


def packed_bytes(m: int, d: int, groups: int, form: Format, itemsize: int) -> int:
    """Bytes of a packed linear: 32-bit words along each row, scales, zeros packed along the rows."""
    words = m * math.ceil(d * form.bits / 32)
    zeros = 0 if form.symmetric else groups * math.ceil(m * form.bits / 32)
    return 4 * (words + zeros) + m * groups * itemsize
