"""What happens to a tensor on its way into a GGUF file. Each works on tensors without data too, which gives shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

Argument: TypeAlias = float | tuple[tuple[int, float], ...]
"""A number, or (rows, number) for every labelled part of a tensor's first dimension."""


def squeeze(t: Tensor, value: Any) -> Tensor:
    """A depthwise convolution (channels, 1, width) -> (channels, width)."""
    return t.squeeze(1)


def neg_exp(t: Tensor, value: Any) -> Tensor:
    """A_log -> A = -exp(A_log)."""
    return -torch.exp(t.float())


def column(t: Tensor, value: Any) -> Tensor:
    """One number per head as (heads, 1)."""
    return t[:, None]


def rows(t: Tensor, value: Any) -> Tensor:
    """Split into ``value`` rows: a grouped norm."""
    return t.reshape(int(value), -1)


def scale(t: Tensor, value: Any) -> Tensor:
    """Times ``value``: multipliers that llama.cpp expects inside the weights."""
    scaled: Tensor = t.float() * value
    return scaled


def parts(t: Tensor, value: Any) -> Tensor:
    """Every part of the rows times its own number."""
    factors = torch.cat([torch.full((rows, 1), factor) for rows, factor in value])
    return t.float() * factors.to(t.device)


def plus(t: Tensor, value: Any) -> Tensor:
    """Norm weights stored as w - 1."""
    shifted: Tensor = t.float() + value
    return shifted


def rotary(t: Tensor, value: Any) -> Tensor:
    """Rows of ``value`` heads from two halves to pairs: llama.cpp turns (2i, 2i + 1), transformers (i, i + e/2)."""
    head = t.shape[0] // int(value)
    return t.reshape(int(value), 2, head // 2, *t.shape[1:]).swapaxes(1, 2).reshape(t.shape)


OPERATIONS: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "squeeze": squeeze,
    "neg_exp": neg_exp,
    "column": column,
    "rows": rows,
    "scale": scale,
    "parts": parts,
    "plus": plus,
    "rotary": rotary,
}
ROWS_ONLY = {"rotary"}
"""Operations that move whole rows: packed codes survive them."""
