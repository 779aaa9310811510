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
    sums = _square_sums(t)
    inner = [p for p in parents if p not in env]
    for dim, marginal in zip(layout.dims, sums, strict=True):
        for piece, names in _grids(dim, marginal, anatomy.sizes):
            for place in [j for j, name in enumerate(names) if name == axis]:
                keep = [names.index(p) for p in inner] + [place]
                drop = tuple(j for j in range(piece.ndim) if j not in keep)
                reduced = piece.sum(axis=drop)
                order = np.argsort(np.argsort(keep))
                target[outer] += np.transpose(reduced, order) if reduced.ndim > 1 else reduced


def _square_sums(t: torch.Tensor) -> list[NDArray[np.float64]]:
    """Per dimension, the squares summed over all other dimensions."""
    sums = [np.zeros(n) for n in t.shape]
    step = max(1, _SLAB // max(1, t[0].numel()))
    for start in range(0, t.shape[0], step):
        squares = t[start : start + step].to(torch.float32).square()
        for j in range(t.ndim):
            part = squares.sum(dim=[k for k in range(t.ndim) if k != j], dtype=torch.float64).numpy()
            if j == 0:
                sums[j][start : start + len(part)] = part
            else:
                sums[j] += part
    return sums


def _grids(
    node: lo.Node, marginal: NDArray[np.float64], sizes: dict[str, int]
) -> list[tuple[NDArray[np.float64], list[str]]]:
    """Parts of one dimension as arrays over named axes (unnamed factors are called '')."""
    if isinstance(node, lo.Norm):
        return _grids(node.body, marginal, sizes)
    if isinstance(node, lo.Sum):
        out, start = [], 0
        for part in node.parts:
            n = lo.size(part, sizes)
            out += _grids(part, marginal[start : start + n], sizes)
            start += n
        return out
    factors = node.factors if isinstance(node, lo.Product) else (node,)
    nested = [f for f in factors if isinstance(f, lo.Sum | lo.Product)]
    if not nested:
        names = [f.name if isinstance(f, lo.Axis) else "" for f in factors]
        return [(marginal.reshape([lo.size(f, sizes) for f in factors]), names)]
    return _nested(factors, nested[0], marginal, sizes)


def _nested(
    factors: tuple[lo.Node, ...], inner: lo.Node, marginal: NDArray[np.float64], sizes: dict[str, int]
) -> list[tuple[NDArray[np.float64], list[str]]]:
    """``(k r (q:e + gate:c))``: axes outside the bracket, then one array per part of the bracket."""
    at = factors.index(inner)
    outer, after = factors[:at], factors[at + 1 :]
    assert not after, "a bracket must be the last factor of its product"
    shape = [lo.size(f, sizes) for f in outer]
    names = [f.name if isinstance(f, lo.Axis) else "" for f in outer]
    block = marginal.reshape([*shape, lo.size(inner, sizes)])
    out, start = [], 0
    for part in inner.parts if isinstance(inner, lo.Sum) else (inner,):
        n = lo.size(part, sizes)
        piece = block[..., start : start + n]
        tail = part.factors if isinstance(part, lo.Product) else (part,)
        tail_names = [f.name if isinstance(f, lo.Axis) else "" for f in tail]
        out.append((piece.reshape([*shape, *(lo.size(f, sizes) for f in tail)]), names + tail_names))
        start += n
    return out
