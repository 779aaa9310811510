"""Budgets as people write them, and what a shape costs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secateur.anatomy import expr
from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy, TensorDecl
from secateur.checkpoint import DTYPES
from secateur.errors import UsageError
from secateur.model import Model

_COUNT = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_BYTES = {"": 1, "b": 1} | {
    f"{p}{s}": (1000 if s == "b" else 1024) ** i for i, p in enumerate("kmgt", 1) for s in ("b", "ib")
}
_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*([A-Za-z%]*)\s*", re.IGNORECASE)


def parse_amount(text: str, whole: int, kind: str) -> int:
    """``60%`` of ``whole``, ``4B``, ``350M`` (kind 'params'); ``8GB``, ``8GiB`` (kind 'bytes').

    Raises UsageError for anything else, and for amounts of zero or less.
    """
    units = _COUNT if kind == "params" else _BYTES
    match = _NUMBER.fullmatch(text)
    unit = match.group(2).lower() if match else ""
    if not match or (unit != "%" and unit not in units):
        shown = "60%, 4B, 350M or 1200000" if kind == "params" else "60%, 8GB, 8GiB or 900MB"
        raise UsageError(f"--{kind} {text!r} is no amount; write {shown}")
    value = float(match.group(1))
    amount = whole * value / 100 if unit == "%" else value * units[unit]
    if not math.isfinite(amount):
        raise UsageError(f"--{kind} {text!r} is beyond all bounds; give a smaller amount")
    if amount < 1:
        raise UsageError(f"--{kind} {text!r} leaves nothing; give an amount above zero")
    return int(amount)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a shape takes. ``bytes``: tensors as stored. Caches: bytes per sequence while decoding.

    ``kv_per_token`` grows with every token (up to ``window`` tokens where attention slides); ``ssm_state`` (float32)
    and ``conv_state`` are fixed.
    """

    parameters: int
    bytes: int
    kv_per_token: int
    ssm_state: int
    conv_state: int

    def to_json(self) -> dict[str, int]:
        return {
            "parameters": self.parameters,
            "bytes": self.bytes,
            "kv_bytes_per_token": self.kv_per_token,
            "ssm_state_bytes": self.ssm_state,
            "conv_state_bytes": self.conv_state,
        }


def cost(model: Model, sizes: Mapping[str, int], layers: Sequence[int]) -> Cost:
    """Exact parameters and tensor bytes of the shape, and its caches."""
    anatomy, kept = model.anatomy, frozenset(layers)
    nbytes = 0
    for decl in anatomy.tensors.values():
        if _stays(anatomy, decl, kept) and all(i < sizes[a] for a, i in decl.env.items() if a != "S"):
            nbytes += lo.numel(decl.layout, sizes) * model.itemsize(decl)
    width = DTYPES[model.default_dtype][1]
    per_token = state = conv = 0
    for layer, _, _, block in anatomy.blocks():
        if layer in kept:
            per_token += int(expr.evaluate(block.cache.per_token, sizes))
            state += int(expr.evaluate(block.cache.state, sizes))
            conv += int(expr.evaluate(block.cache.conv, sizes))
    return Cost(int(anatomy.count(sizes, kept)), nbytes, per_token * width, state * 4, conv * width)


def _stays(anatomy: Anatomy, decl: TensorDecl, kept: frozenset[int]) -> bool:
    """Whether a tensor is still there: a shared block as long as one user is, an adapter with its own user."""
    shared, layer = anatomy.family.shared, decl.layer
    if layer is not None and shared is not None and decl.pattern.startswith(shared.prefix):
        if "S" in decl.env:
            return anatomy.shared_users[decl.env["S"]] in kept
        block = anatomy.block_of(layer)
        return any(i in kept and anatomy.block_of(i) == block for i in anatomy.shared_users)
    return layer is None or layer in kept


def group_bytes(model: Model, sizes: Mapping[str, Any], layers: frozenset[int] | None = None) -> Any:
    """Tensor bytes at arrays of candidate ``sizes``; an upper bound where one group mixes dtypes."""
    width: dict[tuple[str, str], int] = {}
    for decl in model.anatomy.tensors.values():
        key = (decl.part, decl.pattern)
        width[key] = max(width.get(key, 0), model.itemsize(decl))
    return sum(g.count(sizes, layers) * width[g.part, g.key] for g in model.anatomy.groups)
