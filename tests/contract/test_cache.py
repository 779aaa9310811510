"""Declared cache sizes against the cache transformers really keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from secateur.anatomy import expr

from .harness import Parent, double_precision, ids, load
from .rows import ROWS


def declared(parent: Parent, tokens: int) -> dict[str, int]:
    total = {"tokens": 0, "state": 0, "conv": 0}
    for _, _, _, block in parent.anatomy.blocks():
        total["tokens"] += tokens * expr.evaluate(block.cache.per_token, parent.anatomy.sizes)
        total["state"] += expr.evaluate(block.cache.state, parent.anatomy.sizes)
        total["conv"] += expr.evaluate(block.cache.conv, parent.anatomy.sizes)
    return total


def kept(layers: list[Any]) -> dict[str, int]:
    def entries(tensors: Any) -> int:
        return sum(t[0].numel() for t in tensors if t is not None)

    total = {"tokens": 0, "state": 0, "conv": 0}
    for layer in layers:
        total["tokens"] += entries([getattr(layer, "keys", None), getattr(layer, "values", None)])
        total["state"] += entries(getattr(layer, "recurrent_states", {}).values())
        total["conv"] += entries(getattr(layer, "conv_states", {}).values())
    return total


@pytest.mark.parametrize("name", [n for n, row in ROWS.items() if row.cached])
def test_cache_holds_what_the_family_declares(name: str, parents: dict[str, Parent]) -> None:
    tokens = ids(5)  # shorter than every attention window
    with torch.no_grad(), double_precision():
        out = load(parents[name].folder)(tokens, use_cache=True)
    cache = getattr(out, "cache_params", None) or getattr(out, "past_key_values", None)
    if cache is None:
        pytest.skip("this class keeps its cache inside the modules")
    assert kept(cache.layers) == declared(parents[name], tokens.shape[1])
