"""What removed units are on disk: constants in their place, or nothing where a smaller shape can say it.

A layer is dropped. Of the rest the standard class keeps the tensors, so an exact standard checkpoint holds zeros in
their place, and D = 1 where C = 0 makes y = C h + D x = x; B = 0 as well, so that the state stays empty. (A_log = 0 is
A = -1, not "removed": it is B and C that are.) Where all layers lose alike, a smaller ``ssm_state`` or ``ffn`` really
takes them out (:func:`shrunk`); what is left stored though dead is counted (:func:`dead`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy, TensorDecl
from secateur.anatomy.axes import PUBLIC
from secateur.errors import InexpressibleError, UsageError
from secateur.importance import Scores
from secateur.model import Model
from secateur.pruning.removed import (
    CHANNELS,
    FFN,
    LAYER,
    SCAN,
    SKIP,
    Unit,
    block_patterns,
    channel_slot,
    scan_slot,
    slot_of,
)
from secateur.pruning.select import flat_index
from secateur.pruning.shape import resolve

_INNER = {PUBLIC["ssm_state"].symbol, PUBLIC["dt_rank"].symbol}
_SCAN_ONLY = ("A_log", "dt_bias", "dt_proj.bias")
"""Parts of a scan that neither a label nor an axis tells, by the end of their name."""


@dataclass(frozen=True, slots=True)
class Hole:
    """``value`` at the entries ``index`` of dimension ``dim``."""

    dim: int
    index: NDArray[np.int64]
    value: float = 0.0


def holes(unit: Unit, anatomy: Anatomy) -> Iterator[tuple[TensorDecl, Hole]]:
    """(tensor, hole) for everything that is dead once ``unit``, no whole layer, is gone."""
    slot = slot_of(unit, anatomy)
    assert slot is not None, unit
    patterns = {name for name, _ in block_patterns(anatomy, unit.layer, slot)}
    for decl in anatomy.tensors.values():
        if decl.layer == unit.layer and decl.pattern in patterns:
            yield from ((decl, hole) for hole in _in_tensor(unit, decl, anatomy))


def _in_tensor(unit: Unit, decl: TensorDecl, anatomy: Anatomy) -> list[Hole]:
    sizes, layout = anatomy.sizes, decl.layout
    if unit.part == CHANNELS:
        return [
            Hole(j, flat_index(d, lambda a, _: _units(a, unit, sizes), sizes, {}, {}))
            for j, d in enumerate(layout.dims)
            if FFN in lo.axes_of(d)
        ]
    whole = np.arange(lo.shape(layout, sizes)[0])
    if unit.part != SCAN:
        return [Hole(0, whole)]
    parts = [at for label, at in lo.labels(layout, sizes).items() if label in ("B", "C", "dt")]
    if parts:
        return [Hole(j, np.arange(a, b)) for j, a, b in parts]
    if decl.name.rpartition(".")[2] == SKIP:
        return [Hole(0, whole, 1.0)]
    return [Hole(0, whole)] if _INNER & {*layout.axes} or decl.name.endswith(_SCAN_ONLY) else []


def _units(axis: str, unit: Unit, sizes: Mapping[str, int]) -> NDArray[np.int64]:
    return np.arange(unit.first, unit.last) if axis == FFN else np.arange(sizes[axis])


class Silenced(Model):
    """A checkpoint read as if ``units`` (no whole layers) were gone."""

    def __init__(self, model: Model, units: Sequence[Unit]) -> None:
        super().__init__(model.source, model.folder, model.raw, model.store)
        self.units = tuple(units)
        self.holes: dict[str, list[Hole]] = {}
        for unit in units:
            for decl, hole in holes(unit, self.anatomy):
                self.holes.setdefault(decl.name, []).append(hole)

    def read(self, name: str) -> torch.Tensor:
        """One tensor, with its holes."""
        t = super().read(name)
        for hole in self.holes.get(name, ()):
            t = t.index_fill(hole.dim, torch.from_numpy(hole.index), hole.value)
        return t

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows of one tensor, with its holes."""
        return self.read(name)[start:stop] if name in self.holes else super().read_rows(name, start, stop)

    def ranked(self, scores: Scores) -> Scores:
        """``scores`` with channels that are gone behind all others, so that a smaller MLP loses them first."""
        out = {key: score.copy() for key, score in scores.items()}
        for layer in {u.layer for u in self.units if u.part == CHANNELS}:
            key = FFN, self.anatomy.scope(FFN, layer)
            if key in out:
                out[key][..., lost_channels(self.units, layer)] = -np.inf
        return out


def shrunk(units: Sequence[Unit], layers: Sequence[int], anatomy: Anatomy) -> dict[str, int]:
    """Public sizes that take out what all of ``layers`` lose alike: the smallest the config can say."""
    keep: dict[str, int] = {}
    scans = {i: slot for i in layers if (slot := scan_slot(anatomy, i))}
    if scans and all({Unit(i, SCAN), Unit(i, slot)} & {*units} for i, slot in scans.items()):
        keep |= _smallest(anatomy, "ssm_state", 1)
    mlps = [i for i in layers if (slot := channel_slot(anatomy, i)) and Unit(i, slot) not in units]
    gone = min((len(lost_channels(units, i)) for i in mlps), default=0)
    return keep | _smallest(anatomy, "ffn", anatomy.sizes[FFN] - gone) if gone else keep


def lost_channels(units: Sequence[Unit], layer: int) -> list[int]:
    """Channels of a layer's MLP that are gone."""
    runs = (range(u.first, u.last) for u in units if u.part == CHANNELS and u.layer == layer)
    return sorted({i for run in runs for i in run})


def _smallest(anatomy: Anatomy, name: str, least: int) -> dict[str, int]:
    """{name: the smallest size from ``least`` on that the config can say}; nothing when that is the present one."""
    for size in range(max(1, least), anatomy.public_size(PUBLIC[name])):
        try:
            resolve(anatomy, {name: size})
        except (InexpressibleError, UsageError):
            continue
        return {name: size}
    return {}


def dead(units: Sequence[Unit], layers: Sequence[int], parent: Anatomy, child: Anatomy) -> dict[str, int]:
    """Unit -> parameters that the child, which keeps ``layers`` of the parent, stores although they are gone."""
    new = {old: i for i, old in enumerate(layers)}
    cut = parent.sizes.get(FFN, 0) - child.sizes.get(FFN, 0)
    found: dict[str, int] = {}
    for unit in units:
        assert unit.part != LAYER
        if unit.part == CHANNELS:
            left = len(lost_channels(units, unit.layer)) - cut
            there = Unit(new[unit.layer], CHANNELS, 0, left)
            name = f"{CHANNELS} {unit.layer}"
        else:
            there, name = Unit(new[unit.layer], unit.part), str(unit)
        found[name] = sum(len(h.index) * _per_entry(decl, h, child) for decl, h in holes(there, child))
    return found


def _per_entry(decl: TensorDecl, hole: Hole, anatomy: Anatomy) -> int:
    """Parameters per index of the hole's dimension."""
    shape = lo.shape(decl.layout, anatomy.sizes)
    return int(np.prod([s for j, s in enumerate(shape) if j != hole.dim], dtype=np.int64))


__all__ = ["Hole", "Silenced", "dead", "holes", "lost_channels", "shrunk"]
