"""Uniform grids: the values a quantised weight may take, and how their scales are found.

Glossary: ``W`` (m, d); columns come in groups of ``g`` that share a scale ``s`` and a zero ``z`` in each row;
``q`` the code of a weight, a whole number of ``b`` bits.

    q = clamp(round(w / s) + z, -2^(b-1), 2^(b-1) - 1)          w' = (q - z) s

    symmetric     z = 0,  s = 2 max|w| / (2^b - 1)
    asymmetric    s = (max(w, 0) - min(w, 0)) / (2^b - 1),  z = -2^(b-1) - round(min(w, 0) / s)
    search        the range shrunk in 100 steps down to a fifth; of these the one with the least sum |w - w'|^2.4 in
                  the group (GPTQ's numbers), or the least sum C_jj (w_j - w'_j)^2: the error if no inputs correlated

Scales are rounded to the dtype they are stored in *before* codes are chosen, so what a loader computes from the stored
parts is what the solver saw. Codes are signed in either case, as compressed-tensors packs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from secateur.errors import UsageError

Search = Literal["minmax", "mse", "gram"]
_STEPS, _LEAST, _NORM = 100, 0.2, 2.4
_CACHED = 1 << 15
"""Weights whose ranges are searched together: few enough to stay in a processor's cache."""


@dataclass(frozen=True, slots=True)
class Format:
    """``group``: columns that share a scale, 0: the whole row. Raises UsageError for what cannot be packed."""

    bits: int = 4
    group: int = 128
    symmetric: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise UsageError(f"--bits {self.bits}: expected 2 to 8")
        if self.group < 0:
            raise UsageError(f"--group {self.group}: expected a number of columns, or 0 for one scale per row")

    @property
    def low(self) -> int:
        return -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        return (1 << (self.bits - 1)) - 1

    def width(self, columns: int) -> int:
        """Columns per scale of a matrix with ``columns``: ``group`` where it divides them; else a divisor from there
        down to a quarter, the largest power of two (kernels of engines know no others) before any; else the whole
        row (loaders know no ragged last group)."""
        if not self.group or self.group >= columns:
            return columns
        if columns % self.group == 0:
            return self.group
        fitting = [w for w in range(self.group, max(1, self.group // 4) - 1, -1) if columns % w == 0]
        powers = [w for w in fitting if w & (w - 1) == 0]
        return (powers or fitting or [columns])[0]


@dataclass(frozen=True, slots=True)
class Grid:
    """Scales and zeros (..., ) of groups whose weights lie along a further last dimension."""

    scale: Tensor
    zero: Tensor
    low: int
    high: int

    def codes(self, w: Tensor) -> Tensor:
        """The nearest code of ``w`` (..., g), as floats."""
        return (w / self.scale[..., None]).round_().add_(self.zero[..., None]).clamp_(self.low, self.high)

    def values(self, codes: Tensor) -> Tensor:
        """What codes (..., g) stand for."""
        return (codes - self.zero[..., None]).mul_(self.scale[..., None])

    def snap(self, w: Tensor) -> Tensor:
        """The nearest value of the grid."""
        return self.codes(w).sub_(self.zero[..., None]).mul_(self.scale[..., None])

    def column(self, group: int, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """:meth:`snap` for a column (m,) of one group, of a grid (m, groups): a sweep asks for every column, and short
        operations are what it takes its time for."""
        scale, zero = (t[:, group].to(dtype).contiguous() for t in (self.scale, self.zero))
        if bool(zero.any()):
            return lambda w: (w / scale).round_().add_(zero).clamp_(self.low, self.high).sub_(zero).mul_(scale)
        return lambda w: (w / scale).round_().clamp_(self.low, self.high).mul_(scale)


def fit(
    w: Tensor, form: Format, *, search: Search = "minmax", weights: Tensor | None = None, dtype: torch.dtype
) -> Grid:
    """The grid of groups ``w`` (..., g). ``weights`` (..., g) or (g,): C_jj for ``search="gram"``."""
    low, high = w.amin(-1).clamp(max=0), w.amax(-1).clamp(min=0)
    if search == "minmax":
        return _grid(low, high, form, dtype)
    narrow = w if dtype == torch.float64 else w.float()  # losses of a file's weights need no more to be compared
    flat, judge = narrow.reshape(-1, w.shape[-1]), None
    if search == "gram" and weights is not None:
        judge = weights.to(narrow.dtype).expand(narrow.shape).reshape(flat.shape)
    shares = torch.empty(len(flat), dtype=w.dtype, device=w.device)
    rows = max(1, _CACHED // w.shape[-1])
    for at in range(0, len(flat), rows):
        part = slice(at, at + rows)
        shares[part] = _least_share(flat[part], form, dtype, None if judge is None else judge[part])
    shares = shares.reshape(w.shape[:-1])
    return _grid(low * shares, high * shares, form, dtype)


def _least_share(w: Tensor, form: Format, dtype: torch.dtype, weights: Tensor | None) -> Tensor:
    """How much of the range of groups ``w`` (n, g) is best kept, (n,)."""
    high, low = w.amax(-1).clamp(min=0), w.amin(-1).clamp(max=0)
    best = w.new_ones(len(w))
    least = _loss(w, _grid(low, high, form, dtype), weights)
    for step in range(1, int(_STEPS * (1 - _LEAST)) + 1):
        share = 1 - step / _STEPS
        loss = _loss(w, _grid(low * share, high * share, form, dtype), weights)
        best = torch.where(loss < least, share, best)
        least = torch.minimum(loss, least)
    return best


def _grid(low: Tensor, high: Tensor, form: Format, dtype: torch.dtype) -> Grid:
    levels = 2**form.bits - 1
    if form.symmetric:
        scale = _rounded(2 * torch.maximum(high, -low) / levels, dtype)
        return Grid(scale, torch.zeros_like(scale), form.low, form.high)
    scale = _rounded((high - low) / levels, dtype)
    zero = torch.clamp(form.low - torch.round(low / scale), form.low, form.high)
    return Grid(scale, zero, form.low, form.high)


def _rounded(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Scales as they will be stored; 1 where a group is all zeros (or too small for the dtype)."""
    stored = scale.to(dtype).to(scale.dtype)
    return torch.where(stored > 0, stored, torch.ones_like(stored))


def _loss(w: Tensor, grid: Grid, weights: Tensor | None) -> Tensor:
    gap = grid.snap(w).sub_(w)
    return gap.abs_().pow_(_NORM).sum(-1) if weights is None else gap.square_().mul_(weights).sum(-1)
