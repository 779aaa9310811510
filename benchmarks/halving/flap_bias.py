"""FLAP's bias compensation (arXiv 2312.11983): what the removed channels contributed on average becomes a bias.

    b = W[:, removed] mean(x[removed])        for every linear that writes the residual stream and lost inputs

The parent's linears have no bias, and nemotron_h has one switch for all linears of a mixer, so ``use_bias`` and
``mlp_bias`` are turned on and the other biases are zero. Means are the parent's.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from secateur.anatomy import layout as lo
from secateur.calibration.stats import Stats
from secateur.model import Model, open_model
from secateur.pruning.recorded import recorded_cut
from secateur.pruning.select import flat_index

_READERS = {"mixer.out_proj.weight": "mixer.in_proj", "mixer.down_proj.weight": "mixer.up_proj"}


def compensate(parent: Model, child: Model, stats: Stats, out: Path) -> Model:
    """``child`` with the biases, written to ``out``."""
    anatomy, cut = parent.anatomy, recorded_cut(parent, child)
    tensors = {name: child.read(name) for name in child.weights.tensors}
    for layer in range(anatomy.n_layers):
        for _, _, name, layout in anatomy.layer_tensors(layer):
            if name not in _READERS:
                continue
            prefix = anatomy.layer_prefix(layer)
            kept = flat_index(layout.dims[1], cut.keep.lookup(layer), anatomy.sizes, anatomy.parents, {})
            gone = torch.ones(lo.size(layout.dims[1], anatomy.sizes), dtype=torch.bool)
            gone[torch.from_numpy(kept)] = False
            weight = parent.read(prefix + name)
            bias = weight[:, gone].double() @ mean(stats, layer, name)[gone]
            opening = prefix + _READERS[name]
            tensors[f"{prefix}{name.removesuffix('weight')}bias"] = bias.to(weight.dtype)
            tensors[f"{opening}.bias"] = torch.zeros(len(tensors[f"{opening}.weight"]), dtype=weight.dtype)
    shutil.copytree(child.folder, out, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json", "config.json"))
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    config: dict[str, Any] = json.loads((child.folder / "config.json").read_text()) | {
        "use_bias": True,
        "mlp_bias": True,
    }
    (out / "config.json").write_text(json.dumps(config, indent=2))
    return open_model(out)


def mean(stats: Stats, layer: int, name: str) -> torch.Tensor:
    """Mean input of a linear over the calibration tokens, float64."""
    total = stats.get(layer, name, "in", "sum")
    assert total is not None
    return torch.from_numpy(total) / stats.tokens
