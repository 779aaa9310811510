"""NUPES (Yvinec et al., arXiv 2308.05600): a grid of powers, whose exponent is searched for.

    w' = s sign(c) |c / c_max|^(1/a)        c whole, |c| <= c_max = 2^(b-1) - 1;  a = 1 is the uniform grid

a < 1 puts levels close together near 0, where most weights lie. One exponent a layer, the one with the least error of
the layer, tr((W - W') C (W - W')^T), or of the weights where no text was read; then the column sweep of GPTQ on that
grid. Shapes: W (m, d), s (m, groups). Difference from known code: the paper learns exponent and weights by gradients;
here the exponent is searched for on a grid, then by golden section, and the weights follow from the Gram.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.layerwise.base import Method, Problem, Solution
from secateur.layerwise.gram import DAMP
from secateur.layerwise.quantize.grids import Format
from secateur.layerwise.quantize.levels import nearest, power_levels
from secateur.layerwise.sweep import sweep

_EXPONENTS, _TRIES = [0.3 + 0.1 * k for k in range(10)], 8
_GOLDEN = (5**0.5 - 1) / 2
_SHRINKS = 40


@dataclass(frozen=True, slots=True)
class Settings:
    """``exponent``: 0 searches for it. ``sweep``: make up for rounding errors as GPTQ does, where text was read."""

    bits: int = 4
    group: int = 128
    exponent: float = 0.0
    sweep: bool = True
    damp: float = DAMP


def solve(problem: Problem, settings: Settings) -> Solution:
    """Search, then sweep."""
    form = Format(settings.bits, settings.group)
    m, d = problem.weight.shape
    blocks = problem.weight.reshape(m, -1, form.width(d))
    heard = problem.gram.tokens > 0
    judge = problem.gram if heard else None

    def loss(a: float) -> float:
        levels = power_levels(settings.bits, a)
        scale = scales(blocks, levels, problem.dtype)
        gap = (snap(blocks, levels, scale) - blocks).reshape(m, d)
        return judge.error(gap) if judge is not None else float(gap.square().sum())

    exponent = settings.exponent or search(loss)
    levels = power_levels(settings.bits, exponent)
    scale = scales(blocks, levels, problem.dtype)
    weight = snap(blocks, levels, scale).reshape(m, d)
    if heard and settings.sweep:
        weight = _swept(problem, levels, scale, settings.damp)
    codes = nearest(weight.reshape(blocks.shape) / scale[..., None], levels)
    stored = snap(weight.reshape(blocks.shape), levels, scale).reshape(m, d).to(problem.dtype).double()
    nbytes = (m * d * settings.bits + 7) // 8 + scale.numel() * problem.dtype.itemsize
    parts = {"codes": codes.to(torch.int16), "scale": scale.to(problem.dtype), "levels": levels}
    notes = {"bits": settings.bits, "group": form.width(d), "exponent": round(exponent, 4)}
    return Solution(stored, parts, problem.error(stored), nbytes, notes)


def scales(blocks: Tensor, levels: Tensor, dtype: torch.dtype) -> Tensor:
    """The scale of every group (m, groups) with the least squared error, of 40 from the largest weight down to half."""
    top = blocks.abs().amax(-1).to(dtype).double()
    top = torch.where(top > 0, top, 1.0)
    best, least = top, torch.full_like(top, torch.inf)
    for step in range(_SHRINKS):
        tried = (top * (1 - step / (2 * _SHRINKS))).to(dtype).double()
        loss = (snap(blocks, levels, tried) - blocks).square().sum(-1)
        best, least = torch.where(loss < least, tried, best), torch.minimum(loss, least)
    return best


def snap(blocks: Tensor, levels: Tensor, scale: Tensor) -> Tensor:
    """The nearest values, shape of ``blocks`` (.., g); ``scale`` (..)."""
    return levels[nearest(blocks / scale[..., None], levels)] * scale[..., None]


def search(loss: Callable[[float], float]) -> float:
    """The exponent with the least loss: the best of a row, then golden section around it, or 1.0."""
    best = min(_EXPONENTS, key=loss)
    fine = golden(loss, best - 0.1, best + 0.1, tries=_TRIES)
    return min((1.0, best, fine), key=loss)


def golden(loss: Callable[[float], float], low: float, high: float, *, tries: int) -> float:
    """Where ``loss`` is least between ``low`` and ``high``, by golden section."""
    a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_a, at_b = loss(a), loss(b)
    for _ in range(tries - 2):
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - _GOLDEN * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + _GOLDEN * (high - low)
            at_b = loss(b)
    return a if at_a < at_b else b


def _swept(problem: Problem, levels: Tensor, scale: Tensor, damp: float) -> Tensor:
    order = problem.gram.loudest(damp)
    width = problem.weight.shape[1] // scale.shape[1]
    groups = (order // width).tolist()
    swept, _ = sweep(
        problem.weight[:, order],
        problem.gram.sweep(damp, loudest=True),
        lambda j, rest: snap(rest[0][:, None], levels, scale[:, groups[j]])[:, 0],
    )
    out = torch.empty_like(swept)
    out[:, order] = swept
    return out


METHOD = Method("nupes", "NUPES (2308.05600): a grid of powers, its exponent searched", "gram", Settings, solve)
