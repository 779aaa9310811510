"""The cut: parent tensors -> child tensors, by layout alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy, TensorDecl
from secateur.pruning.configure import child_config
from secateur.pruning.keep import KeepSets
from secateur.pruning.norms import NormMode, NormPlan, plan_norms
from secateur.pruning.select import dim_indices, flat_index, leading, mask_tensor, slice_tensor, take_all

#: Rows ``start`` to ``stop`` of one parent tensor.
ReadRows = Callable[[int, int], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Target:
    """What becomes of one parent tensor. ``name`` is None when it is dropped; ``why`` then says why."""

    decl: TensorDecl
    name: str | None
    shape: tuple[int, ...]
    factor: float
    cut: bool
    why: str = ""

    @property
    def action(self) -> str:
        """``copied``, ``cut``, ``rescaled``, ``cut+rescaled`` or ``dropped``: the word the audit uses."""
        if self.name is None:
            return "dropped"
        verbs = [v for v, true in (("cut", self.cut), ("rescaled", self.factor != 1.0)) if true]
        return "+".join(verbs) or "copied"


class Cut:
    """One cut, ready to be applied tensor by tensor.

    ``layers``: old indices that stay, increasing. Building it validates everything; no weight is touched before.
    """

    def __init__(
        self, parent: Anatomy, keep: KeepSets, layers: Sequence[int] | None = None, *, norm: NormMode = "auto"
    ) -> None:
        self.parent, self.keep = parent, keep
        self.layers = tuple(range(parent.n_layers)) if layers is None else tuple(layers)
        self.new_sizes = keep.sizes()
        self.norms: NormPlan = plan_norms(parent, self.new_sizes, norm)
        self.config: dict[str, Any] = child_config(parent, self.new_sizes, self.layers, self.norms.eps)
        self.child: Anatomy = parent.at(self.config)
        self._new_layer = {old: new for new, old in enumerate(self.layers)}

    def targets(self) -> Iterator[Target]:
        """Every declared parent tensor with its place in the child."""
        for decl in self.parent.tensors.values():
            name, why = self._rename(decl)
            shape = lo.shape(decl.layout, self.new_sizes)
            touched = any((a, self.parent.scope(a, decl.layer)) in self.keep.arrays for a in decl.layout.axes)
            yield Target(decl, name, shape, self.norms.factor(decl), touched, why)

    def _rename(self, decl: TensorDecl) -> tuple[str | None, str]:
        if decl.layer is None:
            return decl.name, ""
        home = self._home(decl)
        if home is None:
            return None, f"layer {decl.layer} is dropped"
        gone = next((a for a in decl.layout.axes if not self.new_sizes[a]), None)
        if gone is not None:
            return None, f"no unit of axis {gone} is left"
        key, lookup = decl.pattern, self.keep.lookup(decl.layer)
        for axis, old in decl.env.items():
            new = self._new_user(old) if axis == "S" else _position(lookup(axis, {}), old)
            if new is None:
                return None, f"{axis} {old} is not kept"
            key = key.replace(f"{{{axis}}}", str(new), 1)
        return self.child.layer_prefix(home) + key, ""

    def _home(self, decl: TensorDecl) -> int | None:
        """New index of the layer a tensor is stored under; a shared block moves to its first surviving user."""
        assert decl.layer is not None
        shared = self.parent.family.shared
        if shared is None or not decl.pattern.startswith(shared.prefix):
            return self._new_layer.get(decl.layer)
        block = self.parent.block_of(decl.layer)
        users = [i for i in self.layers if i in self.parent.shared_users and self.parent.block_of(i) == block]
        return self._new_layer[users[0]] if users else None

    def _new_user(self, old: int) -> int | None:
        survivors = [i for i in self.layers if i in self.parent.shared_users]
        layer = self.parent.shared_users[old]
        return survivors.index(layer) if layer in survivors else None

    def apply(self, target: Target, t: torch.Tensor) -> torch.Tensor:
        """The child's tensor, in the dtype of ``t``. Shapes: parent layout in, child layout out."""
        decl = target.decl
        out = slice_tensor(
            t, decl.layout, self.keep.lookup(decl.layer), self.parent.sizes, self.parent.parents, decl.env
        )
        return scaled(out, target.factor, decl.layout.norm)

    def stream(self, target: Target, read_rows: ReadRows, slab_rows: int) -> Iterator[torch.Tensor]:
        """:meth:`apply` for a tensor too large to hold: slabs of the result along dimension 0, in order.

        ``read_rows(start, stop)`` gives parent rows. Falls back to one slab when kept rows are not in rising order.
        """
        decl = target.decl
        args = self.keep.lookup(decl.layer), self.parent.sizes, self.parent.parents
        total = lo.shape(decl.layout, self.parent.sizes)[0]
        axis = leading(decl.layout, self.parent.parents)
        rest = lo.Layout(decl.layout.text, decl.layout.dims[1:], decl.layout.norm)
        if axis is not None:
            for i in args[0](axis, decl.env):
                piece = slice_tensor(read_rows(int(i), int(i) + 1)[0], rest, *args, {**decl.env, axis: int(i)})
                yield scaled(piece, target.factor, decl.layout.norm)[None]
            return
        rows = flat_index(decl.layout.dims[0], *args, decl.env)
        if len(rows) and (np.diff(rows) < 0).any():
            yield self.apply(target, read_rows(0, total))
            return
        others = dim_indices(rest, *args, decl.env)
        for start in range(0, total, slab_rows):
            here = rows[(rows >= start) & (rows < start + slab_rows)] - start
            if not len(here):
                continue
            piece = read_rows(start, min(total, start + slab_rows))
            piece = take_all(piece, [here if len(here) < piece.shape[0] else None, *others])
            yield scaled(piece, target.factor, decl.layout.norm)

    def mask(self, target: Target, t: torch.Tensor) -> torch.Tensor:
        """The parent's tensor with everything zero that :meth:`apply` would remove."""
        decl = target.decl
        if target.name is None:
            return torch.zeros_like(t)
        return mask_tensor(
            t, decl.layout, self.keep.lookup(decl.layer), self.parent.sizes, self.parent.parents, decl.env
        )


def _position(kept: np.ndarray[Any, Any], old: int) -> int | None:
    found = np.flatnonzero(kept == old)
    return int(found[0]) if len(found) else None


def scaled(t: torch.Tensor, factor: float, norm: str | None) -> torch.Tensor:
    """``factor`` times the effective weight; norms stored as w - 1 are shifted first. Computed in at least float32."""
    if factor == 1.0:
        return t
    wide = t.to(torch.promote_types(t.dtype, torch.float32))
    return ((wide + 1) * factor - 1 if norm == "1+" else wide * factor).to(t.dtype)
