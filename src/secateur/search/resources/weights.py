"""Bytes of the weights, every tensor in the dtype it is stored in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from secateur.anatomy.anatomy import Group
from secateur.model import Model
from secateur.search.resources.base import Meter, Workload


def meter(model: Model, workload: Workload) -> Meter:
    """Exact, also where layers are stored in different dtypes; the workload does not matter.

    Where experts of one layer differ in dtype, the widest counts for all of them.
    """
    groups = _groups(model)

    def nbytes(sizes: Mapping[str, Any], layers: frozenset[int]) -> Any:
        return sum(group.count(sizes, layers) * width for group, width in groups)

    return nbytes


def _groups(model: Model) -> list[tuple[Group, int]]:
    """Groups of equal layout and equal dtype with the bytes of an entry."""
    widths: dict[tuple[str, str, int | None], int] = {}
    for decl in model.anatomy.tensors.values():
        # adapters of a shared block lie at the block's first user, but belong to the user they number
        layer = model.anatomy.shared_users[decl.env["S"]] if "S" in decl.env else decl.layer
        key = (decl.part, decl.pattern, layer)
        widths[key] = max(widths.get(key, 0), model.itemsize(decl))
    out = []
    for group in model.anatomy.groups:
        if group.layers is None or group.once:  # one tensor, stored in the stem or at the first of its users
            layer = None if group.layers is None else group.layers[0]
            out.append((group, widths[group.part, group.key, layer]))
            continue
        by_width: dict[int, list[int]] = {}
        for i in group.layers:
            by_width.setdefault(widths[group.part, group.key, i], []).append(i)
        out += [(replace(group, layers=tuple(where)), width) for width, where in by_width.items()]
    return out
