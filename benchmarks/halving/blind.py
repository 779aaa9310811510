"""The cut a group-blind ranking makes: heads ranked over the whole layer land under another group's B and C.

The library cannot do this (heads are indexed inside their group), so the *parent* is made wrong: its heads are moved
so that the best ones of the layer fill the first places of every group, while B and C stay where they are. Keeping the
first heads of each group then gives what slicing the best heads of one global order and calling them ``g`` groups
gives. That order is either the old one, where many heads stay in their group by luck, or the ranking itself, as in
implementations that sort units by importance and keep a prefix. FFN neurons are moved too (best first), which changes
nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import TensorDecl
from secateur.calibration.stats import Stats
from secateur.importance import activation
from secateur.model import Model, open_model
from secateur.pruning.shape import resolve

Order = NDArray[np.int64]


def move_heads(parent: Model, stats: Stats, keep: dict[str, int], out: Path, *, by_rank: bool) -> tuple[Model, int]:
    """The parent with its heads moved, at ``out``; and how many of the kept heads left their group, over all layers."""
    anatomy = parent.anatomy
    new = resolve(anatomy, keep)
    scores = activation.score(anatomy, stats, [a for a in ("h", "f") if new[a] != anatomy.sizes[a]], new, parent.read)
    orders: dict[tuple[str, str], Order] = {}
    misplaced = 0
    for (axis, scope), score in scores.items():
        if axis == "h":
            orders[axis, scope], moved = global_order(score, new["h"], by_rank=by_rank)
            misplaced += moved
        else:
            orders[axis, scope] = np.argsort(-score, kind="stable")
    tensors = {d.name: _moved(parent, d, orders) for d in anatomy.tensors.values()}
    shutil.rmtree(out, ignore_errors=True)
    ignored = shutil.ignore_patterns("*.safetensors", "*.index.json")
    shutil.copytree(parent.folder, out, ignore=ignored)
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    return open_model(out), misplaced


def global_order(score: NDArray[np.float64], kept: int, *, by_rank: bool) -> tuple[Order, int]:
    """(old head at every place, kept heads that change their group) for scores (g, h) and ``kept`` heads a group."""
    groups, heads = score.shape
    ranked = np.argsort(-score.reshape(-1), kind="stable")
    best, rest = ranked[: groups * kept], ranked[groups * kept :]
    best = best if by_rank else np.sort(best)
    order = np.concatenate([best.reshape(groups, kept), rest.reshape(groups, heads - kept)], axis=1)
    moved = order[:, :kept] // heads != np.arange(groups)[:, None]
    return order.reshape(-1), int(moved.sum())


def _moved(parent: Model, decl: TensorDecl, orders: dict[tuple[str, str], Order]) -> torch.Tensor:
    t = parent.read(decl.name)
    for dim, node in enumerate(decl.layout.dims):
        parts = node.parts if isinstance(node, lo.Sum) else (node,)
        index = []
        start = 0
        for part in parts:
            width = lo.size(part, parent.anatomy.sizes)
            index.append(start + _places(part, width, parent, decl, orders))
            start += width
        t = t.index_select(dim, torch.from_numpy(np.concatenate(index)))
    return t.contiguous()


def _places(part: lo.Node, width: int, parent: Model, decl: TensorDecl, orders: dict[tuple[str, str], Order]) -> Order:
    for axis in ("h", "f"):
        if axis in lo.axes_of(part):
            order = orders.get((axis, parent.anatomy.scope(axis, decl.layer)))
            if order is not None:
                inside = width // len(order)
                return (order[:, None] * inside + np.arange(inside)).reshape(-1)
    return np.arange(width)
