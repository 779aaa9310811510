"""Bytes a decoding step holds: keys and values, recurrent states, convolution states.

    batch * sum over blocks of  per_token * min(context, window) * width + state * 4 + conv * width

``context`` counts the token being decoded. Recurrent states are float32 in every engine; the others have the dtype of
the model. Behind a sliding window an implementation may drop the oldest key after the step; the step itself reads
``window`` of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateur.anatomy import expr
from secateur.anatomy.anatomy import Anatomy
from secateur.anatomy.family import Cache
from secateur.checkpoint import DTYPES
from secateur.model import Model
from secateur.search.resources.base import Meter, Workload

_STATE_BYTES = 4


def meter(model: Model, workload: Workload) -> Meter:
    """Exact."""
    width = DTYPES[model.default_dtype][1]
    blocks = caches(model.anatomy)

    def nbytes(sizes: Mapping[str, Any], layers: frozenset[int]) -> Any:
        total: Any = 0
        for cache, places in blocks.items():
            tokens = seen(model.anatomy, cache, workload.context)
            entries = expr.evaluate(cache.per_token, sizes) * tokens + expr.evaluate(cache.conv, sizes)
            one = entries * width + expr.evaluate(cache.state, sizes) * _STATE_BYTES
            total = total + one * len(layers.intersection(places))
        return total * workload.batch

    return nbytes


def caches(anatomy: Anatomy) -> dict[Cache, list[int]]:
    """What blocks keep, with the layers they stand in."""
    found: dict[Cache, list[int]] = {}
    for layer, _, _, block in anatomy.blocks():
        found.setdefault(block.cache, []).append(layer)
    found.pop(Cache(), None)
    return found


def seen(anatomy: Anatomy, cache: Cache, context: int) -> int:
    """Tokens whose keys a step at ``context`` reads."""
    window = anatomy.config.get(cache.window) if cache.window else None
    return min(context, int(window)) if window else context
