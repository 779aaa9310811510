"""The cut a child's secateur.json records: which units of the parent it is made of."""

from __future__ import annotations

import json
from typing import Any

from secateur.errors import UsageError
from secateur.model import Model
from secateur.prune.cut import Cut
from secateur.prune.keep import KeepSets
from secateur.prune.provenance import FILE


def read_record(child: Model) -> dict[str, Any]:
    """The child's secateur.json. Raises UsageError when there is none or it is damaged."""
    path = child.folder / FILE
    try:
        entry = json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise UsageError(f"{path} cannot be read: {e}", hint="this works on what `secateur prune` wrote") from e
    if not isinstance(entry, dict) or "kept" not in entry or "layers" not in entry:
        raise UsageError(f"{path} records no cut", hint="this works on what `secateur prune` wrote")
    return entry


def recorded_cut(parent: Model, child: Model) -> Cut:
    """The cut from ``parent`` to ``child``. Raises UsageError when the child does not come from this parent."""
    entry = read_record(child)
    if entry.get("parent", {}).get("config_sha256") != parent.config_sha256:
        raise UsageError(f"{child.source} was not cut from {parent.source}: the parent's config differs")
    if entry.get("settings", {}).get("mask"):
        raise UsageError(f"{child.source} is a masked twin, not a cut child")
    keep = KeepSets.from_json(parent.anatomy, entry["kept"])
    return Cut(parent.anatomy, keep, entry["layers"]["kept"], norm=entry["settings"]["norm"])
