"""Sums of a number per tensor entry over everything that belongs to a unit, read off the layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy, Scope
from secateur.anatomy.grids import grids, reduce_to
from secateur.importance.base import Slots

Vector = NDArray[np.float64]
#: Per dimension of a tensor, some number per entry summed over all other dimensions.
Marginals = Callable[[torch.Tensor], list[Vector]]

_SLAB = 1 << 24  # entries worked on at a time


def sum_units(
    anatomy: Anatomy, axes: Iterable[str], tensors: Callable[[str], torch.Tensor | None], marginals: Marginals
) -> dict[tuple[str, Scope], Vector]:
    """(axis, scope) -> sums over the matrices that the axis runs through; each tensor is asked for once.

    ``tensors`` gives a tensor by its on-disk name, or None to leave it out. Vectors (norm weights, biases, A_log, D)
    never count: their scale says nothing about a unit's share of the output.
    """
    wanted = set(axes)
    out: dict[tuple[str, Scope], Vector] = {}
    for axis in wanted:
        slots = Slots.of(anatomy, axis)
        out |= {(axis, scope): np.zeros(slots.shape) for scope in slots.scopes}
    for decl in anatomy.tensors.values():
        used = wanted & {*decl.layout.axes, *decl.env}
        if not used or sum(n > 1 for n in lo.shape(decl.layout, anatomy.sizes)) < 2:
            continue
        t = tensors(decl.name)
        if t is None:
            continue
        for axis in used:
            _add(out[axis, anatomy.scope(axis, decl.layer)], axis, t, decl.layout, anatomy, decl.env, marginals)
    return out


def _add(
    target: Vector,
    axis: str,
    t: torch.Tensor,
    layout: lo.Layout,
    anatomy: Anatomy,
    env: Mapping[str, int],
    marginals: Marginals,
) -> None:
    parents = anatomy.parents[axis]
    outer = tuple(env[p] for p in parents if p in env)
    if axis in env:  # the unit is the whole tensor (one expert's matrix)
        target[(*outer, env[axis])] += float(marginals(t)[0].sum())
        return
    first = layout.dims[0]
    if isinstance(first, lo.Axis) and first.name in parents and first.name not in env:
        rest = lo.Layout(layout.text, layout.dims[1:], layout.norm)
        for i in range(t.shape[0]):
            _add(target, axis, t[i], rest, anatomy, {**env, first.name: i}, marginals)
        return
    inner = [p for p in parents if p not in env]
    for dim, marginal in zip(layout.dims, marginals(t), strict=True):
        for piece, names, _ in grids(dim, marginal, anatomy.sizes):
            for part in reduce_to(piece, names, axis, inner):
                target[outer] += part


def square_sums(t: torch.Tensor) -> list[Vector]:
    """Marginals of the squares. Memory: one slab of rows in float32."""
    return _sums(t, lambda slab: slab.to(torch.float32).square())


def plain_sums(t: torch.Tensor) -> list[Vector]:
    """Marginals of the entries themselves."""
    return _sums(t, lambda slab: slab)


def _sums(t: torch.Tensor, each: Callable[[torch.Tensor], torch.Tensor]) -> list[Vector]:
    sums = [np.zeros(n) for n in t.shape]
    step = max(1, _SLAB // max(1, t[0].numel()))
    for start in range(0, t.shape[0], step):
        slab = each(t[start : start + step])
        for j in range(t.ndim):
            others = [k for k in range(t.ndim) if k != j]
            part = slab.sum(dim=others, dtype=torch.float64) if others else slab.double()
            if j == 0:
                sums[j][start : start + len(part)] = part.cpu().numpy()
            else:
                sums[j] += part.cpu().numpy()
    return sums
