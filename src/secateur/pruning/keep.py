"""Kept units: which entries of each axis stay, per scope and per enclosing unit."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from secateur.anatomy.anatomy import Anatomy, Scope
from secateur.errors import UsageError
from secateur.pruning.select import Index, Lookup

_RANGES = re.compile(r"(\d{1,12}(-\d{1,12})?(,\d{1,12}(-\d{1,12})?)*)?", re.ASCII)


class KeepSets:
    """``(axis, scope) -> int64 array`` of shape (old sizes of the axis' parents ..., new size).

    The last dimension lists kept old indices in their new order; the leading ones say for which enclosing unit, so the
    heads kept in group 1 may differ from those in group 0 but can never come from it. An axis that is not listed keeps
    every unit.
    """

    def __init__(self, anatomy: Anatomy, arrays: Mapping[tuple[str, Scope], Index] | None = None) -> None:
        self.anatomy = anatomy
        self.arrays: dict[tuple[str, Scope], Index] = {}
        for (axis, scope), array in (arrays or {}).items():
            self.set(axis, scope, array)

    def set(self, axis: str, scope: Scope, array: Any) -> None:
        """Record the kept units of ``axis`` in ``scope``; checks shape, range and repeats."""
        value = np.asarray(array, dtype=np.int64)
        lead = tuple(self.anatomy.sizes[p] for p in self.anatomy.parents[axis])
        full = self.anatomy.sizes[axis]
        if value.ndim == 1 and lead:
            value = np.broadcast_to(value, (*lead, len(value)))
        if value.shape[:-1] != lead:
            raise UsageError(
                f"kept units of axis {axis!r} in scope {scope!r} have shape {value.shape}, "
                f"expected {lead} (one set per {' and '.join(self.anatomy.parents[axis]) or 'model'}) + (kept,)"
            )
        if value.size and (value.min() < 0 or value.max() >= full):
            raise UsageError(f"kept units of axis {axis!r} must lie in 0..{full - 1}, got {value.min()}..{value.max()}")
        ordered = np.sort(value, axis=-1)
        if (np.diff(ordered, axis=-1) == 0).any():
            raise UsageError(f"kept units of axis {axis!r} in scope {scope!r} list a unit twice")
        self.arrays[axis, scope] = value

    def get(self, axis: str, scope: Scope, env: Mapping[str, int]) -> Index:
        """Kept old indices of ``axis`` below the enclosing units ``env``."""
        array = self.arrays.get((axis, scope))
        if array is None:
            return np.arange(self.anatomy.sizes[axis])
        kept: Index = array[tuple(env[p] for p in self.anatomy.parents[axis])]
        return kept

    def lookup(self, layer: int | None) -> Lookup:
        """The lookup for tensors of ``layer`` (None: outside the layers)."""
        return lambda axis, env: self.get(axis, self.anatomy.scope(axis, layer), env)

    def sizes(self) -> dict[str, int]:
        """Axis sizes after the cut.

        Raises UsageError when scopes disagree: no supported config can say different sizes for different layers.
        """
        out = dict(self.anatomy.sizes)
        seen: dict[str, int] = {}
        for (axis, scope), array in self.arrays.items():
            n = array.shape[-1]
            if seen.setdefault(axis, n) != n:
                raise UsageError(f"axis {axis!r} keeps {n} units in scope {scope!r} but {seen[axis]} elsewhere")
            out[axis] = n
        for axis, n in seen.items():
            missing = [s for s in self.anatomy.scopes[axis] if (axis, s) not in self.arrays]
            if missing and n != self.anatomy.sizes[axis]:
                raise UsageError(f"axis {axis!r} keeps {n} units, but no kept units are given for scope {missing[0]!r}")
        return out

    def to_json(self) -> dict[str, dict[str, Any]]:
        """``{axis: {scope: nested lists of ranges "0-3,7"}}``."""
        out: dict[str, dict[str, Any]] = {}
        for (axis, scope), array in self.arrays.items():
            out.setdefault(axis, {})[scope] = _ranges(array)
        return out

    @classmethod
    def from_json(cls, anatomy: Anatomy, data: Mapping[str, Mapping[str, Any]]) -> KeepSets:
        """Inverse of :meth:`to_json`."""
        keep = cls(anatomy)
        for axis, scopes in data.items():
            if axis not in anatomy.parents:
                raise UsageError(f"kept units name axis {axis!r}, which this model does not have")
            if not isinstance(scopes, Mapping) or not scopes.keys() <= {*anatomy.scopes[axis]}:
                raise UsageError(f"kept units of axis {axis!r} are not listed by the scopes {anatomy.scopes[axis]}")
            lead = tuple(anatomy.sizes[p] for p in anatomy.parents[axis])
            for scope, ranges in scopes.items():
                keep.set(axis, scope, _parse_ranges(ranges, lead, anatomy.sizes[axis]))
        return keep


def _ranges(array: Index) -> Any:
    if array.ndim > 1:
        return [_ranges(a) for a in array]
    if not len(array):
        return ""
    runs = np.split(array, np.flatnonzero(np.diff(array) != 1) + 1)
    return ",".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


def _parse_ranges(value: Any, lead: tuple[int, ...], size: int) -> Index:
    """Nested lists of shape ``lead`` of ranges below ``size``."""
    if lead:
        if not isinstance(value, list) or len(value) != lead[0]:
            raise UsageError(f"kept units: expected a list of {lead[0]}, one for each enclosing unit")
        inner = [_parse_ranges(v, lead[1:], size) for v in value]
        if len({v.shape for v in inner}) > 1:
            raise UsageError("kept units: enclosing units keep different numbers")
        return np.stack(inner) if inner else np.empty((*lead, 0), dtype=np.int64)
    if not isinstance(value, str) or not _RANGES.fullmatch(value):
        raise UsageError(f"kept units: {reprlib.repr(value)} is no list of ranges; expected '0-3,7'")
    out: list[int] = []
    for run in filter(None, value.split(",")):
        first, _, last = run.partition("-")
        if max(int(first), int(last or first)) >= size:
            raise UsageError(f"kept units: {run} is outside 0..{size - 1}")
        out.extend(range(int(first), int(last or first) + 1))
    return np.asarray(out, dtype=np.int64)
