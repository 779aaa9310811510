"""What a model takes, one resource a file. ``RESOURCES`` is the list users see.

Latency is a resource too, but has to be measured first: :mod:`secateur.search.latency`.
"""

from __future__ import annotations

from secateur.search.resources import cache, flops, params, weights
from secateur.search.resources.base import Meter, Resource, Workload

RESOURCES: dict[str, Resource] = {
    r.name: r
    for r in (
        Resource("params", "count", "parameters", params.meter),
        Resource("bytes", "bytes", "weights as stored", weights.meter),
        Resource("cache", "bytes", "keys, values and states of a decoding step", cache.meter),
        Resource("prefill_flops", "count", "operations of the prompt", flops.prefill),
        Resource("decode_flops", "count", "operations of one new token", flops.decode),
    )
}

__all__ = ["RESOURCES", "Meter", "Resource", "Workload"]
