"""Layout + kept units -> rows and columns: the one generic slicer, and the mask that is its twin.

For each tensor dimension the layout yields one flat index (which old entries stay, in the new order). Slicing takes
those entries; masking zeroes all others. Nothing here knows any architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.anatomy import layout as lo
from secateur.checkpoint.buffers import BufferPool

Index = NDArray[np.int64]
#: (axis, enclosing old indices) -> kept old indices of the axis, in their new order.
Lookup = Callable[[str, Mapping[str, int]], Index]
Parents = Mapping[str, tuple[str, ...]]
_POOL = BufferPool()
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def flat_index(
    node: lo.Node, lookup: Lookup, sizes: Mapping[str, int], parents: Parents, env: Mapping[str, int]
) -> Index:
    """Kept entries along one tensor dimension, as indices into the old dimension."""
    if isinstance(node, lo.Axis):
        return lookup(node.name, env)
    if isinstance(node, lo.Literal):
        return np.arange(node.n)
    if isinstance(node, lo.Norm):
        return flat_index(node.body, lookup, sizes, parents, env)
    if isinstance(node, lo.Sum):
        out, start = [], 0
        for part in node.parts:
            out.append(start + flat_index(part, lookup, sizes, parents, env))
            start += lo.size(part, sizes)
        return np.concatenate(out)
    head, *rest = node.factors
    if not rest:
        return flat_index(head, lookup, sizes, parents, env)
    tail = rest[0] if len(rest) == 1 else lo.Product(tuple(rest))
    stride = lo.size(tail, sizes)
    chosen = flat_index(head, lookup, sizes, parents, env)
    core = head.body if isinstance(head, lo.Norm) else head
    if not isinstance(core, lo.Axis) or not _depends(tail, core.name, parents):
        inner = flat_index(tail, lookup, sizes, parents, env)
        both: Index = chosen[:, None] * stride + inner[None, :]
        return both.reshape(-1)
    rows = [i * stride + flat_index(tail, lookup, sizes, parents, {**env, core.name: int(i)}) for i in chosen]
    return np.concatenate(rows) if rows else np.empty(0, np.int64)


def _depends(node: lo.Node, axis: str, parents: Parents) -> bool:
    return any(axis in parents.get(a, ()) for a in lo.axes_of(node))


def leading(layout: lo.Layout, parents: Parents) -> str | None:
    """The leading bare dimension whose entries choose the kept sets of later dimensions (an expert's channels)."""
    first = layout.dims[0]
    if isinstance(first, lo.Axis) and any(_depends(d, first.name, parents) for d in layout.dims[1:]):
        return first.name
    return None


def dim_indices(
    layout: lo.Layout, lookup: Lookup, sizes: Mapping[str, int], parents: Parents, env: Mapping[str, int]
) -> list[Index | None]:
    """One flat index per dimension; None where every entry stays in place."""
    out: list[Index | None] = []
    for dim in layout.dims:
        index = flat_index(dim, lookup, sizes, parents, env)
        full = lo.size(dim, sizes)
        out.append(None if len(index) == full and bool((index == np.arange(full)).all()) else index)
    return out


def slice_tensor(
    t: torch.Tensor,
    layout: lo.Layout,
    lookup: Lookup,
    sizes: Mapping[str, int],
    parents: Parents,
    env: Mapping[str, int],
) -> torch.Tensor:
    """``t`` with only the kept units, in their order. Returns ``t`` itself when nothing changes."""
    axis = leading(layout, parents)
    if axis is not None:
        rest = lo.Layout(layout.text, layout.dims[1:], layout.norm)
        kept = lookup(axis, env)
        return torch.stack([slice_tensor(t[int(i)], rest, lookup, sizes, parents, {**env, axis: int(i)}) for i in kept])
    return take_all(t, dim_indices(layout, lookup, sizes, parents, env))


def take_all(t: torch.Tensor, indices: Sequence[Index | None]) -> torch.Tensor:
    """:func:`take` along every dimension with an index; views come first, so that copies are small."""
    todo = [(j, index) for j, index in enumerate(indices) if index is not None]
    for j, index in sorted(todo, key=lambda item: not _is_run(item[1])):
        t = take(t, j, index)
    return t


def _is_run(index: Index) -> bool:
    return len(index) > 0 and bool((np.diff(index) == 1).all())


def take(t: torch.Tensor, dim: int, index: Index, *, max_runs: int = 256) -> torch.Tensor:
    """Entries ``index`` of dimension ``dim``; few long runs are copied as blocks, which is several times faster."""
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    if len(index) and len(breaks) < max_runs and len(index) >= 8 * (len(breaks) + 1):
        runs = np.split(index, breaks)
        pieces = [t.narrow(dim, int(r[0]), len(r)) for r in runs]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim, out=_empty(t, dim, len(index)))
    # numpy gathers columns about three times faster than index_select; bit patterns travel as integers
    bits, out = t.contiguous().view(_BITS[t.element_size()]).numpy(), _empty(t, dim, len(index))
    # "clip" skips a second pass over out; indices are in range, as kept sets are checked when they are made
    np.take(bits, index, axis=dim, out=out.view(_BITS[t.element_size()]).numpy(), mode="clip")
    return out


def _empty(t: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    """Recycled memory for ``t`` with ``size`` entries along ``dim``: fresh pages would cost more than the copy."""
    shape = list(t.shape)
    shape[dim] = size
    return _POOL.empty(tuple(shape), t.dtype)


def mask_tensor(
    t: torch.Tensor,
    layout: lo.Layout,
    lookup: Lookup,
    sizes: Mapping[str, int],
    parents: Parents,
    env: Mapping[str, int],
) -> torch.Tensor:
    """``t`` with every entry that :func:`slice_tensor` would remove set to zero."""
    axis = leading(layout, parents)
    if axis is not None:
        rest = lo.Layout(layout.text, layout.dims[1:], layout.norm)
        out = torch.zeros_like(t)
        for i in lookup(axis, env):
            out[int(i)] = mask_tensor(t[int(i)], rest, lookup, sizes, parents, {**env, axis: int(i)})
        return out
    out = t
    for j, index in enumerate(dim_indices(layout, lookup, sizes, parents, env)):
        if index is not None:
            keep = torch.zeros(t.shape[j], dtype=torch.bool)
            keep[torch.from_numpy(index)] = True
            shape = [1] * t.ndim
            shape[j] = -1
            out = torch.where(keep.view(shape), out, torch.zeros((), dtype=t.dtype))
    return out
