"""Numbers per tensor entry along one dimension, seen as arrays over named axes.

The bridge from a flat vector (channel statistics, squared column norms) to scores of units: ``(z:g h p + x:g h p)``
turns a vector into two arrays of shape (g, h, p).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from secateur.anatomy import layout as lo

Vector = NDArray[np.float64]


def grids(node: lo.Node, vector: Vector, sizes: Mapping[str, int]) -> list[tuple[Vector, list[str], str | None]]:
    """(array, axis name of each of its dimensions, label) for every part of a tensor dimension; '' = no axis."""
    if isinstance(node, lo.Norm):
        return grids(node.body, vector, sizes)
    if isinstance(node, lo.Sum):
        out, start = [], 0
        for part, label in zip(node.parts, node.labels, strict=True):
            n = lo.size(part, sizes)
            out += [(a, names, label or inner) for a, names, inner in grids(part, vector[start : start + n], sizes)]
            start += n
        return out
    factors = node.factors if isinstance(node, lo.Product) else (node,)
    factors = tuple(f.body if isinstance(f, lo.Norm) else f for f in factors)
    *outer, last = factors
    if not isinstance(last, lo.Sum | lo.Product):
        names = [f.name if isinstance(f, lo.Axis) else "" for f in factors]
        return [(vector.reshape([lo.size(f, sizes) for f in factors]), names, None)]
    shape = [lo.size(f, sizes) for f in outer]
    names = [f.name if isinstance(f, lo.Axis) else "" for f in outer]
    return _bracket(last, vector.reshape([*shape, -1]), shape, names, sizes)


def _bracket(
    node: lo.Sum | lo.Product, block: Vector, shape: list[int], names: list[str], sizes: Mapping[str, int]
) -> list[tuple[Vector, list[str], str | None]]:
    """``(k r (q:e + gate:c))``: the axes outside the bracket, then those of each part inside it."""
    parts = node.parts if isinstance(node, lo.Sum) else (node,)
    labels = node.labels if isinstance(node, lo.Sum) else (None,)
    out, start = [], 0
    for part, label in zip(parts, labels, strict=True):
        n = lo.size(part, sizes)
        tail = part.factors if isinstance(part, lo.Product) else (part,)
        tail_names = [f.name if isinstance(f, lo.Axis) else "" for f in tail]
        piece = block[..., start : start + n].reshape([*shape, *(lo.size(f, sizes) for f in tail)])
        out.append((piece, names + tail_names, label))
        start += n
    return out


def reduce_to(array: Vector, names: Sequence[str], axis: str, parents: Sequence[str]) -> list[Vector]:
    """Sums of ``array`` over everything but ``parents`` and one occurrence of ``axis``: shape (parents ..., axis).

    One result per occurrence (block-diagonal matrices name an axis twice). Empty when a parent is missing here.
    """
    if any(p not in names for p in parents):
        return []
    out = []
    for place in [j for j, name in enumerate(names) if name == axis]:
        keep = [names.index(p) for p in parents] + [place]
        summed = array.sum(axis=tuple(j for j in range(array.ndim) if j not in keep))
        rank = np.argsort(np.argsort(keep))
        # after the sum the kept dimensions stand in their old order; rank says where each wanted one went
        out.append(np.transpose(summed, rank))
    return out
