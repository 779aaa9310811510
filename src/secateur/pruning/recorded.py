"""The cut a child's secateur.json records: which units of the parent it is made of."""

from __future__ import annotations

from typing import Any, get_args

from secateur.checkpoint.files import read_small
from secateur.checkpoint.strict_json import parse_json
from secateur.errors import UsageError
from secateur.model import Model
from secateur.pruning.cut import Cut
from secateur.pruning.keep import KeepSets
from secateur.pruning.norms import NormMode
from secateur.pruning.provenance import FILE
from secateur.pruning.removed import Unit, parse_unit

_MAX_FILE = 1 << 30
"""Bytes; the audit of a model of 100,000 tensors needs about 20 MB."""
_PARTS = ("parent", "settings", "layers", "kept")


def read_record(child: Model) -> dict[str, Any]:
    """The child's secateur.json. Raises UsageError when there is none or it is damaged."""
    path = child.folder / FILE
    entry = parse_json(read_small(path, _MAX_FILE, UsageError), path=path, error=UsageError, specials=True)
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), dict) for key in _PARTS):
        raise UsageError(f"{path} records no cut", hint="this works on what `secateur prune` wrote")
    return entry


def recorded_cut(parent: Model, child: Model) -> Cut:
    """The cut from ``parent`` to ``child``. Raises UsageError when the child does not come from this parent."""
    entry = read_record(child)
    if entry["parent"].get("config_sha256") != parent.config_sha256:
        raise UsageError(f"{child.source} was not cut from {parent.source}: the parent's config differs")
    if entry["settings"].get("mask"):
        raise UsageError(f"{child.source} is a masked twin, not a cut child")
    keep = KeepSets.from_json(parent.anatomy, entry["kept"])
    return Cut(parent.anatomy, keep, _layers(parent, child, entry), norm=_norm(child, entry))


def recorded_units(parent: Model, child: Model) -> tuple[Unit, ...]:
    """The units that went inside of layers that stayed. Raises UsageError for names that mean nothing in the parent."""
    entry = read_record(child).get("removed", {})
    names = entry.get("units") if isinstance(entry, dict) else None
    if entry and not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
        raise UsageError(f"{child.folder / FILE}: 'removed' names no units such as 'scan 3'")
    return tuple(parse_unit(name, parent.anatomy) for name in names or ())


def _layers(parent: Model, child: Model, entry: dict[str, Any]) -> list[int]:
    kept, known = entry["layers"].get("kept"), range(parent.anatomy.n_layers)
    if not isinstance(kept, list) or not all(type(i) is int and i in known for i in kept) or kept != sorted(set(kept)):
        raise UsageError(f"{child.folder / FILE}: the kept layers are not rising numbers from 0 to {known.stop - 1}")
    return kept


def _norm(child: Model, entry: dict[str, Any]) -> NormMode:
    norm: NormMode = entry["settings"].get("norm")
    if norm not in get_args(NormMode):
        raise UsageError(f"{child.folder / FILE}: norm is {norm!r}, expected one of {', '.join(get_args(NormMode))}")
    return norm
