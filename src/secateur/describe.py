"""What a checkpoint is made of, as plain data: the content of ``secateur inspect``."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy
from secateur.anatomy.axes import PublicAxis
from secateur.anatomy.sizes import expressible, tied_axes
from secateur.model import Model
from secateur.pruning.budget import cost
from secateur.pruning.shape import refusal


def describe(model: Model) -> dict[str, Any]:
    """Family, layers by kind, axes with sizes and shares, parts, caches, and what can and cannot be pruned."""
    anatomy = model.anatomy
    whole = cost(model, anatomy.sizes, range(anatomy.n_layers))
    return {
        "source": model.source,
        "model_type": anatomy.family.model_type,
        "architecture": anatomy.family.architecture,
        "parameters": whole.parameters,
        "bytes": whole.bytes,
        "weights": model.store is not None,
        "layers": {
            "count": anatomy.n_layers,
            "kinds": dict(Counter("+".join(k) for k in anatomy.kinds)),
            "list": ["+".join(k) for k in anatomy.kinds],
        },
        "axes": [_axis(model, axis) for axis in anatomy.public_axes()],
        "parts": _parts(model),
        "cache": {
            "kv_bytes_per_token": whole.kv_per_token,
            "ssm_state_bytes": whole.ssm_state,
            "conv_state_bytes": whole.conv_state,
            "windows": _windows(anatomy),
        },
        "left_behind": dict(model.left),
        "advice": [f"{a.engine}: {a.why}" for a in anatomy.advice],
    }


def _axis(model: Model, axis: PublicAxis) -> dict[str, Any]:
    anatomy = model.anatomy
    parameters = nbytes = 0
    for decl in anatomy.tensors.values():
        if axis.symbol in decl.layout.axes or axis.symbol in decl.env:
            n = lo.numel(decl.layout, anatomy.sizes)
            parameters += n
            nbytes += n * model.itemsize(decl)
    size = anatomy.public_size(axis)
    why = refusal(anatomy, axis)
    alone = [] if why else sizes_alone(anatomy, axis)
    return {
        "name": axis.name,
        "size": size,
        "unit": axis.unit,
        "parameters": parameters,
        "bytes": nbytes,
        "prunable": bool(alone),
        "sizes": alone,
        "why_not": why or ("" if alone else _why_not_alone(anatomy, axis)),
    }


def sizes_alone(anatomy: Anatomy, axis: PublicAxis) -> list[int]:
    """Public sizes below the current one that the config can say with every other axis as it is, rising."""
    outer = math.prod(anatomy.sizes[s] for s in axis.symbols[:-1])
    values = np.arange(0 if axis.symbol in anatomy.family.may_be_zero else 1, anatomy.sizes[axis.symbol])
    if not len(values):
        return []
    trial: dict[str, Any] = {**anatomy.sizes, **dict.fromkeys(tied_axes(anatomy.family, axis.symbol), values)}
    ok = np.broadcast_to(expressible(anatomy.family, trial, anatomy.config, anatomy.live), values.shape)
    return [int(v) * outer for v in values[ok]]


def _why_not_alone(anatomy: Anatomy, axis: PublicAxis) -> str:
    if anatomy.sizes[axis.symbol] == 1:
        return "only one is left"
    partners = _partners(anatomy, axis)
    return "no smaller size fits the config on its own" + (f"; together with {', '.join(partners)}" if partners else "")


def _partners(anatomy: Anatomy, axis: PublicAxis) -> list[str]:
    """Axes that one size relation binds to ``axis``."""
    from secateur.anatomy.sizes import violations

    trial = dict(anatomy.sizes)
    for symbol in tied_axes(anatomy.family, axis.symbol):
        trial[symbol] = max(1, anatomy.sizes[symbol] - 1)
    found = {a for v in violations(anatomy.family, trial, anatomy.config, anatomy.live) for a in v.axes}
    return [a.name for a in anatomy.public_axes() if a.symbol in found and a.name != axis.name]


def _parts(model: Model) -> dict[str, dict[str, int]]:
    parts: dict[str, dict[str, int]] = {}
    for decl in model.anatomy.tensors.values():
        entry = parts.setdefault(decl.part, {"parameters": 0, "bytes": 0})
        n = lo.numel(decl.layout, model.anatomy.sizes)
        entry["parameters"] += n
        entry["bytes"] += n * model.itemsize(decl)
    return parts


def _windows(anatomy: Anatomy) -> dict[str, int]:
    """Kind -> tokens kept, where attention slides."""
    out = {}
    for _, _, kind, block in anatomy.blocks():
        if block.cache.window and anatomy.config.get(block.cache.window):
            out[kind] = int(anatomy.config[block.cache.window])
    return out
