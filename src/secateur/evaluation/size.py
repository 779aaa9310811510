"""How large a checkpoint is: parameters, bytes on disk, and bytes of cache at a length of context. Needs no weights."""

from __future__ import annotations

from typing import Any

from secateur.model import Model
from secateur.pruning.budget import cost
from secateur.search.resources import Workload, cache


def size(model: Model, context: int) -> dict[str, Any]:
    """Parameters (all, and without embedding and head), weight bytes, cache bytes of a sequence of ``context`` tokens.

    ``disk_bytes``: the weight files as they lie, headers included; None when only a config was opened.
    """
    anatomy = model.anatomy
    whole = cost(model, anatomy.sizes, range(anatomy.n_layers))
    embedding = sum(int(g.count(anatomy.sizes)) for g in anatomy.groups if g.part == "embedding")
    files = None if model.store is None else sum(p.stat().st_size for p in model.store.files.values())
    return {
        "parameters": whole.parameters,
        "non_embedding": whole.parameters - embedding,
        "bytes": whole.bytes,
        "disk_bytes": files,
        "cache_bytes": cache_bytes(model, context),
        "context": context,
    }


def cache_bytes(model: Model, context: int) -> int:
    """Keys and values of ``context`` tokens (fewer where attention slides), recurrent and convolution states."""
    anatomy = model.anatomy
    return int(cache.meter(model, Workload(context))(anatomy.sizes, frozenset(range(anatomy.n_layers))))


def shape(model: Model) -> dict[str, int]:
    """Public size of every axis, layers included."""
    anatomy = model.anatomy
    return {**anatomy.public_sizes(anatomy.sizes), "layers": anatomy.n_layers}


__all__ = ["cache_bytes", "shape", "size"]
