"""secateur.json: what was done, from what, with what, to get what - and what became of every tensor."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from secateur import __version__
from secateur.anatomy.axes import PUBLIC
from secateur.errors import CheckpointError
from secateur.model import Model
from secateur.pruning.cut import Cut, Target

FILE = "secateur.json"
FORMAT = 1


def versions() -> dict[str, str]:
    """Versions of what took part."""
    libraries = {p: version(p) for p in ("torch", "transformers", "safetensors")}
    return {"secateur": __version__, "python": platform.python_version(), **libraries}


def record(
    model: Model,
    cut: Cut,
    targets: Sequence[Target],
    *,
    hashes: Mapping[str, str],
    settings: Mapping[str, Any],
    files: Mapping[str, str],
    before: Mapping[str, int],
    after: Mapping[str, int],
) -> dict[str, Any]:
    """The whole record. ``hashes``: parent file -> sha256; ``files``: other parent files -> what became of them."""
    now, new = cut.parent.public_sizes(cut.parent.sizes), cut.parent.public_sizes(cut.new_sizes)
    return {
        "secateur": FORMAT,
        "step": "prune",
        "versions": versions(),
        "parent": {"source": model.source, "config_sha256": model.config_sha256, "sha256": dict(hashes)},
        "settings": dict(settings),
        "shape": {name: {"before": now[name], "after": new[name]} for name in new},
        "layers": {"before": cut.parent.n_layers, "kept": list(cut.layers)},
        "cost": {"before": dict(before), "after": dict(after)},
        "norms": {"mode": cut.norms.mode, "eps": cut.norms.eps, "exact": cut.norms.exact, "why": cut.norms.why},
        "audit": audit(model, targets, files),
        "axes": {a.symbol: name for name, a in PUBLIC.items() if a.symbols and a.symbol in cut.keep.sizes()},
        "kept": cut.keep.to_json(),
    }


def audit(model: Model, targets: Sequence[Target], files: Mapping[str, str]) -> dict[str, Any]:
    """Every tensor and file of the parent with what was done to it; nothing is passed over in silence."""
    tensors: dict[str, Any] = {}
    for t in targets:
        entry: dict[str, Any] = {"action": t.action}
        if t.name is None:
            entry["why"] = t.why
        elif t.name != t.decl.name:
            entry["name"] = t.name
        if t.name is not None and t.cut:
            entry["shape"] = list(t.shape)
        if t.name is not None and t.factor != 1.0:
            entry["factor"] = t.factor
        tensors[t.decl.name] = entry
    for name, why in model.left.items():
        tensors[name] = {"action": "left behind", "why": why}
    summary = Counter(e["action"] for e in tensors.values())
    return {"summary": dict(sorted(summary.items())), "tensors": tensors, "files": dict(files)}


def history(model: Model) -> dict[str, Any] | None:
    """The secateur.json of a checkpoint, None when it was not made by this library."""
    path = model.folder / FILE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as cause:
        raise CheckpointError(f"{path}: cannot be read: {cause}") from cause
    return found if isinstance(found, dict) else None
