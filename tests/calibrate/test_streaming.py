"""Calibration streams: only one block's weights are ever there, and statistics do not grow with the text.

The same at 11 GB under a memory limit: benchmarks/stream_calibrate.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from secateur.calibration.observer import Layer
from secateur.calibration.stats import calibrate
from secateur.calibration.walker import open_stream
from secateur.model import open_model
from tests.contract.harness import Parent, ids

FAMILIES = ["nemotron_h", "mixtral", "llama"]


def filled(model: Any) -> set[str]:
    """Names of the parameters that have memory behind them."""
    return {name for name, p in model.named_parameters() if not p.is_meta}


@pytest.mark.parametrize("name", FAMILIES)
def test_one_block_at_a_time(name: str, parents: dict[str, Parent]) -> None:
    stream = open_stream(open_model(parents[name].folder), [ids()])
    network = stream.skeleton.model
    stem = filled(network)
    blocks = [{n for n, m in network.named_modules() if m is block} for block in stream.skeleton.blocks]
    for index, (path,) in enumerate(blocks):
        with stream.loaded(index) as layer:
            assert isinstance(layer, Layer) and layer.index == index
            extra = filled(network) - stem
            assert extra and all(n.startswith(f"{path}.") for n in extra)
        assert filled(network) == stem


@pytest.mark.parametrize("name", FAMILIES)
def test_statistics_do_not_grow_with_the_text(name: str, parents: dict[str, Parent]) -> None:
    model = open_model(parents[name].folder)
    tokens = ids()
    few = calibrate(model, tokens, batch=1).tensors
    many = calibrate(model, torch.cat([tokens, tokens, tokens]), batch=1).tensors
    assert {k: v.shape for k, v in few.items()} == {k: v.shape for k, v in many.items()}
