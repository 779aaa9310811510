"""What is in memory at a time does not grow with depth."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from secateur.calibration.observer import Layer
from secateur.layerwise.engine import Engine
from secateur.layerwise.run import Job, compress
from secateur.layerwise.sparsify import SPARSIFY
from secateur.model import open_model
from tests.contract.harness import build

METHOD = SPARSIFY["sparsegpt"]


def held() -> int:
    """Bytes of all tensors that are alive."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter) and not thing.is_meta:
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(storages.values())


@pytest.mark.parametrize("name", ["llama", pytest.param("mixtral", marks=pytest.mark.long)])
def test_four_times_the_layers_take_hardly_more(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, seen = Engine.edit, []

    def edit(self: Engine, layer: Layer) -> bool:
        before = held()
        done = plain(self, layer)
        seen.append(max(before, held()))
        assert not self.changed and not self.grams.state and not self.grams.judged
        return done

    monkeypatch.setattr(Engine, "edit", edit)
    windows = torch.randint(3, 97, (4, 16), generator=torch.Generator().manual_seed(1))
    peaks, layer = [], 0
    for layers in (2, 8):
        parent = build(name, tmp_path / f"{layers}" / "parent", num_hidden_layers=layers)
        model, before = open_model(parent.folder), held()
        layer = sum(t.nbytes for t in parent.tensors.values()) // layers // 2  # float32, as walked
        seen.clear()
        compress(model, windows, tmp_path / f"{layers}" / "out", METHOD, METHOD.configure(), Job(step="sparsify"))
        assert len(seen) == layers
        peaks.append(max(seen) - before)
    assert peaks[0] > layer, "this sees no layer at all"
    # a recorded call (masks) is kept for each layer; six more layers take less than one layer's weights
    assert peaks[1] < peaks[0] + layer, f"{peaks} bytes with 2 and 8 layers, {layer} a layer"
