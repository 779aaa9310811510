"""Floating-point operations (a multiply-add is two) of reading a prompt and of decoding one token after it.

    matrices    2 per entry, token and user of the matrix; routed experts only as many as the router picks
    attention   per query and key seen: 2 * (query heads per key head) * (entries cached per token)
    recurrence  5 per state entry and token: decay, outer product, sum, read-out

Embedding look-ups, norms, biases and activations are left out, below a hundredth in models of usual size. The head
computes one token per sequence. A prompt is counted as a recurrence and with causal attention: what chunked scans and
full score matrices spend beyond that belongs to the implementation, not to the shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateur.anatomy import expr
from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy, Group
from secateur.anatomy.family import Cache
from secateur.model import Model
from secateur.search.resources.base import Meter, Workload
from secateur.search.resources.cache import caches, seen

_RECURRENCE = 5
#: Axes that only look-up tables have.
_TABLES = ("v", "pos")


def prefill(model: Model, workload: Workload) -> Meter:
    """Operations of a prompt of ``context`` tokens in every sequence, up to the first next token."""
    anatomy = model.anatomy

    def total(sizes: Mapping[str, Any], layers: frozenset[int]) -> Any:
        body = _matrices(anatomy, sizes, layers) + _recurrence(anatomy, sizes, layers)
        keys = {c: _keys(seen(anatomy, c, workload.context), workload.context) for c in caches(anatomy)}
        read = _attention(anatomy, sizes, layers, keys)
        return workload.batch * (workload.context * body + read + _head(anatomy, sizes))

    return total


def decode(model: Model, workload: Workload) -> Meter:
    """Operations of one token per sequence, the ``context``-th."""
    anatomy = model.anatomy

    def total(sizes: Mapping[str, Any], layers: frozenset[int]) -> Any:
        body = _matrices(anatomy, sizes, layers) + _recurrence(anatomy, sizes, layers)
        keys = {c: seen(anatomy, c, workload.context) for c in caches(anatomy)}
        return workload.batch * (body + _attention(anatomy, sizes, layers, keys) + _head(anatomy, sizes))

    return total


def _keys(window: int, context: int) -> int:
    """Keys read by all tokens of a prompt together: 1 + 2 + .. until the window is full."""
    return window * (window + 1) // 2 + (context - window) * window


def _matrices(anatomy: Anatomy, sizes: Mapping[str, Any], layers: frozenset[int]) -> Any:
    return sum(2 * _active(anatomy, g, sizes, layers) for g in anatomy.groups if _multiplies(g))


def _multiplies(group: Group) -> bool:
    tables = set(_TABLES) & set(group.layout.axes)
    return not tables and not group.key.endswith("bias") and len(group.layout.dims) > 1


def _stacked(group: Group) -> bool:
    """Whether one tensor holds the matrices of all experts (the router's has two dimensions)."""
    return len(group.layout.dims) > 2 and group.layout.dims[0] == lo.Axis("E")


def _active(anatomy: Anatomy, group: Group, sizes: Mapping[str, Any], layers: frozenset[int]) -> Any:
    """Entries of a group that one token meets."""
    places = 1 if group.layers is None else len(layers.intersection(group.layers))
    entries = lo.numel(group.layout, sizes) * places
    picked = anatomy.config.get("num_experts_per_tok")
    for axis in group.factors:
        entries = entries * (picked if axis == "E" and picked else sizes[axis])
    return entries // sizes["E"] * picked if _stacked(group) and picked else entries


def _head(anatomy: Anatomy, sizes: Mapping[str, Any]) -> Any:
    """The embedding's matrix where the head is tied to it."""
    heads = [g for g in anatomy.groups if g.layers is None and g.key in anatomy.family.head]
    tables = [g for g in anatomy.groups if g.layers is None and "v" in g.layout.axes]
    return sum(2 * lo.numel(g.layout, sizes) for g in heads or tables)


def _attention(anatomy: Anatomy, sizes: Mapping[str, Any], layers: frozenset[int], keys: Mapping[Cache, int]) -> Any:
    return sum(
        _per_key(anatomy, cache, sizes) * keys[cache] * len(layers.intersection(places))
        for cache, places in caches(anatomy).items()
    )


def _per_key(anatomy: Anatomy, cache: Cache, sizes: Mapping[str, Any]) -> Any:
    """Operations of a query token with one cached token."""
    entries = expr.evaluate(cache.per_token, sizes)
    if "kr" in expr.names(cache.per_token):
        # latent attention: every head scores the whole latent and sums its rank (absorbed form, arXiv 2405.04434)
        return 2 * sizes["a"] * (entries + sizes["kr"])
    return 2 * (sizes["r"] if "r" in anatomy.live else 1) * entries


def _recurrence(anatomy: Anatomy, sizes: Mapping[str, Any], layers: frozenset[int]) -> Any:
    return sum(
        _RECURRENCE * expr.evaluate(cache.state, sizes) * len(layers.intersection(places))
        for cache, places in caches(anatomy).items()
    )


__all__ = ["decode", "prefill"]
