"""Weight magnitude: the L2 norm of all matrix entries that belong to a unit.

Glossary: ``a`` an axis, ``u`` one of its units below its enclosing units, ``W`` every matrix ``a`` runs through.

    score[u] = sqrt( sum over W of sum of W[entries of u]^2 )

Vectors (norm weights, biases, A_log, D) are left out: their scale says nothing about a unit's share of the output.
Differs from Torch-Pruning's group magnitude (arXiv 2301.12900) only in that units are read off layouts, not traced.
Memory: one slab of rows in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy
from secateur.anatomy.grids import grids, reduce_to
from secateur.importance.base import Reader, Scores, Slots

_SLAB = 1 << 24  # entries squared at a time


def score(anatomy: Anatomy, read: Reader, axes: Iterable[str], seed: int) -> Scores:
    """Root of the summed squares per unit. Each tensor is read once."""
    wanted = set(axes)
    energy: dict[tuple[str, str], NDArray[np.float64]] = {}
    for axis in wanted:
        slots = Slots.of(anatomy, axis)
        energy |= {(axis, scope): np.zeros(slots.shape) for scope in slots.scopes}
    for decl in anatomy.tensors.values():
        used = wanted & {*decl.layout.axes, *decl.env}
        if not used or sum(n > 1 for n in lo.shape(decl.layout, anatomy.sizes)) < 2:
            continue
        t = read(decl.name)
        for axis in used:
            target = energy[axis, anatomy.scope(axis, decl.layer)]
            _add(target, axis, t, decl.layout, anatomy, decl.env)
    return {key: np.sqrt(e) for key, e in energy.items()}


def _add(
    target: NDArray[np.float64],
    axis: str,
    t: torch.Tensor,
    layout: lo.Layout,
    anatomy: Anatomy,
    env: Mapping[str, int],
) -> None:
    parents = anatomy.parents[axis]
    outer = tuple(env[p] for p in parents if p in env)
    if axis in env:  # the unit is the whole tensor (one expert's matrix)
        target[(*outer, env[axis])] += float(_square_sums(t)[0].sum())
        return
    first = layout.dims[0]
    if isinstance(first, lo.Axis) and first.name in parents and first.name not in env:
        rest = lo.Layout(layout.text, layout.dims[1:], layout.norm)
        for i in range(t.shape[0]):
            _add(target, axis, t[i], rest, anatomy, {**env, first.name: i})
        return
    inner = [p for p in parents if p not in env]
    for dim, marginal in zip(layout.dims, _square_sums(t), strict=True):
        for piece, names, _ in grids(dim, marginal, anatomy.sizes):
            for energy in reduce_to(piece, names, axis, inner):
                target[outer] += energy


def _square_sums(t: torch.Tensor) -> list[NDArray[np.float64]]:
    """Per dimension, the squares summed over all other dimensions."""
    sums = [np.zeros(n) for n in t.shape]
    step = max(1, _SLAB // max(1, t[0].numel()))
    for start in range(0, t.shape[0], step):
        squares = t[start : start + step].to(torch.float32).square()
        for j in range(t.ndim):
            others = [k for k in range(t.ndim) if k != j]  # summing over no dimension would sum over all
            part = (squares.sum(dim=others, dtype=torch.float64) if others else squares.double()).numpy()
            if j == 0:
                sums[j][start : start + len(part)] = part
            else:
                sums[j] += part
    return sums
