"""What is removed in memory and what is written to disk give the same logits, in every family, in float64."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from secateur.anatomy import layout as lo
from secateur.evaluation.equality import verify
from secateur.model import open_model
from secateur.pruning.plan import load_plan, make_plan
from secateur.pruning.removed import CHANNELS, LAYER, SCAN, Unit, block_patterns, channel_slot, scan_slot
from secateur.pruning.run import Settings, prune
from secateur.pruning.silenced import dead
from secateur.search.removal.masked import Masked
from tests.contract.harness import Parent, distance, double_precision, ids, load, logits

SCANS = [
    "mamba", "falcon_mamba", "mamba2", "nemotron_h", "bamba", "falcon_h1", "granitemoehybrid", "zamba2", "jamba",
]  # fmt: skip
BLOCKS = [
    "llama", "gpt2", "opt", "gemma3_text", "mixtral", "gpt_oss", "olmoe", "qwen3_next", "olmo_hybrid", "kimi_linear",
    "lfm2", "recurrent_gemma", "granitemoehybrid", "falcon_h1", "jamba", "bamba",
]  # fmt: skip
CHANNELLED = ["llama", "nemotron_h", "gpt2", "gemma3_text", "bamba", "falcon_h1"]


def both(parent: Parent, units: list[Unit], folder: Path, **settings: object) -> tuple[float, float, dict[str, object]]:
    """(masked against written, whole against written, the record); the child is loaded strictly."""
    whole = load(parent.folder)  # first: it widens what RecurrentGemma holds in float32
    with open_model(parent.folder) as model:
        with double_precision():
            masked = Masked(model, ids(), dtype=torch.float64).logits(0, units)
        plan = make_plan(model, removed=[str(u) for u in units])
        plan.save(folder / "plan.json")
        assert load_plan(folder / "plan.json", model) == plan
        prune(model, plan, folder / "child", Settings(**settings)).__exit__(None, None, None)  # type: ignore[arg-type]
        with open_model(folder / "child") as child:
            assert verify(model, child).holds
    written = logits(load(folder / "child"))
    entry = json.loads((folder / "child" / "secateur.json").read_text())
    return distance(masked, written), distance(logits(whole), written), entry


@pytest.mark.parametrize("name", SCANS)
def test_one_scan_less(name: str, parents: dict[str, Parent], tmp_path: Path) -> None:
    """Everything but z, x, gate and out_proj of that layer is constant; the rest of the model is as it was."""
    parent = parents[name]
    layer = next(i for i in range(parent.anatomy.n_layers) if scan_slot(parent.anatomy, i))
    apart, moved, entry = both(parent, [Unit(layer, SCAN)], tmp_path)
    assert apart < 1e-10 and moved > 1e-3
    with open_model(tmp_path / "child") as child:
        assert child.anatomy.sizes == parent.anatomy.sizes
        changed = {n for n in child.anatomy.tensors if not torch.equal(child.read(n), parent.tensors[n])}
        prefix = parent.anatomy.layer_prefix(layer)
        assert changed and all(n.startswith(prefix) for n in changed)
        counted = sum(int((child.read(n) != parent.tensors[n]).sum()) for n in changed)
    said = entry["removed"]["dead"][f"scan {layer}"]  # type: ignore[index]
    # an entry that was 0 (a D that was 1) before is dead all the same
    assert counted <= said <= counted + 8, (counted, said)


@pytest.mark.parametrize("name", SCANS)
def test_all_scans_less_take_the_state_along(name: str, parents: dict[str, Parent], tmp_path: Path) -> None:
    parent = parents[name]
    units = [Unit(i, SCAN) for i in range(parent.anatomy.n_layers) if scan_slot(parent.anatomy, i)]
    apart, moved, entry = both(parent, units, tmp_path)
    assert apart < 1e-10 and moved > 1e-3
    with open_model(tmp_path / "child") as child:
        assert child.anatomy.sizes["n"] == 1 < parent.anatomy.sizes["n"]
        gone = parent.anatomy.count() - child.anatomy.count()
        assert entry["removed"]["dead"] == dead(units, range(parent.anatomy.n_layers), parent.anatomy, child.anatomy)  # type: ignore[index]
    before = dead(units, range(parent.anatomy.n_layers), parent.anatomy, parent.anatomy)
    left = entry["removed"]["dead"]  # type: ignore[index]
    # all that is gone was dead, and what stays is less than it was
    assert gone == sum(before[u] - left[u] for u in before)  # type: ignore[index]
    assert all(0 < left[u] < before[u] for u in before)  # type: ignore[index]


@pytest.mark.parametrize("name", BLOCKS)
def test_one_sub_block_less(name: str, parents: dict[str, Parent], tmp_path: Path) -> None:
    """In every slot of a layer of each kind; the whole layer, where all its slots go and the config can say it."""
    parent, seen = parents[name], set()
    for layer, kinds in enumerate(parent.anatomy.kinds):
        for slot, kind in zip(parent.anatomy.family.slots, kinds, strict=True):
            if kind in seen:
                continue
            seen.add(kind)
            folder = tmp_path / f"{layer}-{slot.name}"
            folder.mkdir()
            apart, moved, entry = both(parent, [Unit(layer, slot.name)], folder)
            assert apart < 1e-10 and moved > 1e-3, (layer, slot.name)
            patterns = [la for n, la in block_patterns(parent.anatomy, layer, slot.name) if "{" not in n]
            stored = sum(lo.numel(la, parent.anatomy.sizes) for la in patterns)
            assert entry["removed"]["dead"][f"{slot.name} {layer}"] >= stored > 0  # type: ignore[index]


@pytest.mark.parametrize("name", CHANNELLED)
@pytest.mark.parametrize("score", ["magnitude", "random"])
def test_channels_less(name: str, score: str, parents: dict[str, Parent], tmp_path: Path) -> None:
    """What all MLPs lose is cut, whatever the criterion; what one loses more stays, as zeros."""
    parent = parents[name]
    n = parent.anatomy.sizes["f"]
    layers = [i for i in range(parent.anatomy.n_layers) if channel_slot(parent.anatomy, i)]
    units = [Unit(i, CHANNELS, n - 2 - 2 * (i == layers[0]), n) for i in layers]
    apart, moved, entry = both(parent, units, tmp_path, score=score)
    assert apart < 1e-10 and moved > 1e-3
    with open_model(tmp_path / "child") as child:
        assert child.anatomy.sizes["f"] == n - 2
    left = entry["removed"]["dead"]  # type: ignore[index]
    assert left[f"channels {layers[0]}"] > 0  # type: ignore[index]
    assert all(v == 0 for k, v in left.items() if k != f"channels {layers[0]}")  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["llama", "bamba"])
def test_a_layer_all_of_whose_blocks_go_is_dropped(name: str, parents: dict[str, Parent], tmp_path: Path) -> None:
    parent = parents[name]
    slots = [s.name for s in parent.anatomy.family.slots]
    apart, _, entry = both(parent, [Unit(0, s) for s in slots] + [Unit(1, slots[-1])], tmp_path)
    assert apart < 1e-10
    with open_model(tmp_path / "child") as child:
        assert child.anatomy.n_layers == parent.anatomy.n_layers - 1
    assert list(entry["removed"]["dead"]) == [f"{slots[-1]} 1"]  # type: ignore[index]


def test_layers_and_scans_together(parents: dict[str, Parent], tmp_path: Path) -> None:
    parent = parents["mamba2"]
    apart, _, entry = both(parent, [Unit(1, LAYER), Unit(0, SCAN)], tmp_path)
    assert apart < 1e-10 and entry["layers"]["kept"] == [i for i in range(parent.anatomy.n_layers) if i != 1]  # type: ignore[index]
