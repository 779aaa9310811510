"""Every family through the layer-wise engine: each linear in the audit, strict reload, weights as they were solved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from secateur.calibration.experts import fused
from secateur.calibration.observer import Layer
from secateur.calibration.walker import walk
from secateur.layerwise.base import Problem
from secateur.layerwise.engine import Engine
from secateur.layerwise.observe import Grams
from secateur.layerwise.run import Job, compress, gram_memory, survey
from secateur.layerwise.sparsify import SPARSIFY
from secateur.model import open_model

from .harness import Parent, distance, double_precision, ids, load, logits
from .rows import ROWS

FAMILIES = [n for n in ROWS if "@" not in n]
OTHERS = ("nemotron_h@latent", "falcon_h1@no_norm", "zamba2@free_heads", "gpt2@implied_ffn_untied")
METHOD = SPARSIFY["sparsegpt"]


@pytest.mark.parametrize("name", [*FAMILIES, *OTHERS])
def test_every_linear_is_solved_or_left_for_a_reason(
    name: str, parents: dict[str, Parent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = parents[name]
    model = open_model(parent.folder)
    solved: dict[str, torch.Tensor] = {}
    plain = Engine.solve

    def solve(self: Engine, *args: Any) -> dict[str, torch.Tensor]:
        found = plain(self, *args)
        solved.update(found)
        return found

    monkeypatch.setattr(Engine, "solve", solve)
    windows = torch.randint(3, 97, (6, 24), generator=torch.Generator().manual_seed(3))
    job = Job(step="sparsify", batch=2, dtype=torch.float64)
    with double_precision():
        compress(model, windows, tmp_path / "out", METHOD, METHOD.configure(block=16), job)
    audit = json.loads((tmp_path / "out" / "secateur.json").read_text())["audit"]
    tensors = {k: v for f in (tmp_path / "out").glob("*.safetensors") for k, v in load_file(f).items()}
    assert set(tensors) == set(parent.tensors)
    assert set(audit["tensors"]) == set(parent.tensors)
    linears = {p.name for layer in survey(model) for p in layer}
    for tensor, entry in audit["tensors"].items():
        assert entry["action"] == ("sparsified" if tensor in linears else "left"), tensor
        assert entry["action"] == "sparsified" or entry["why"]
        assert torch.equal(tensors[tensor], solved[tensor] if tensor in linears else parent.tensors[tensor]), tensor
    for tensor in linears:
        share = float((tensors[tensor] == 0).double().mean())
        assert 0.4 < share < 0.6, (tensor, share)
        assert int((parent.tensors[tensor] == 0).sum()) == 0
    lines = [line for line in audit["linears"] if line["measured"] is not None]
    assert lines
    assert all(0 <= line["measured"] < 2 for line in lines)
    assert distance(logits(load(parent.folder)), logits(load(tmp_path / "out"))) > 1e-3


@pytest.mark.parametrize("name", ["llama", "mamba", "nemotron_h", "granitemoehybrid", "gpt_oss", "mixtral", "zamba2"])
def test_later_layers_are_calibrated_on_compressed_ones(name: str, parents: dict[str, Parent], tmp_path: Path) -> None:
    """The walk that compresses leaves the hidden states that the written checkpoint makes of the same text."""
    model = open_model(parents[name].folder)
    windows, last = ids(), {}
    plain = Engine.edit

    def edit(self: Engine, layer: Layer) -> bool:
        done = plain(self, layer)
        last["block"] = {n: p.detach().clone() for n, p in layer.block.named_parameters()}
        return done

    with double_precision(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "edit", edit)
        job = Job(step="sparsify", batch=1, dtype=torch.float64)
        compress(model, windows, tmp_path / "out", METHOD, METHOD.configure(), job)
        walked = walk(open_model(tmp_path / "out"), [windows], [], dtype=torch.float64).logits(0)
    child = load(tmp_path / "out")
    assert distance(logits(child, windows), walked) < 1e-9
    of = dict(child.named_parameters())
    layer = model.anatomy.n_layers - 1
    for n, p in last["block"].items():
        match = [q for m, q in of.items() if m.endswith(f"layers.{layer}.{n}") or m.endswith(f"h.{layer}.{n}")]
        if match:
            assert torch.equal(match[0], p), n


def test_memory_is_told_beforehand_and_is_enough(parents: dict[str, Parent]) -> None:
    """The bound holds for what one layer's Grams really take."""
    for name in ("llama", "granitemoehybrid", "recurrent_gemma"):
        model = open_model(parents[name].folder)
        seen: list[int] = []
        grams = Grams("gram", 1)

        def edit(layer: Layer, grams: Grams = grams, seen: list[int] = seen) -> bool:
            seen.append(sum(t.numel() * 8 for k, t in grams.state.items() if k.endswith("matrix")))
            grams.forget()
            return False

        with double_precision():
            walk(model, [ids()], [grams], dtype=torch.float64, edit=edit)
        assert 0 < max(seen) <= gram_memory(model)


@pytest.mark.parametrize("name", [*FAMILIES, *OTHERS])
def test_solved_in_turn_a_linear_is_solved_on_what_it_reads_in_the_child(
    name: str, parents: dict[str, Parent], tmp_path: Path
) -> None:
    """With every linear before it compressed, its inputs are the child's, so the child's own Grams give its weights.
    Layers of routed experts are solved as ever."""
    model, method, checked, routed = open_model(parents[name].folder), SPARSIFY["wanda"], 0, 0
    windows = torch.randint(3, 97, (6, 24), generator=torch.Generator().manual_seed(3))
    with double_precision():
        job = Job(step="sparsify", batch=2, dtype=torch.float64, sequential="linear")
        compress(model, windows, tmp_path / "out", method, method.configure(), job)
        child = open_model(tmp_path / "out")
        grams = Grams("diagonal", 3, lambda p: not p.shared)

        def edit(layer: Layer) -> bool:
            nonlocal checked, routed
            routed += fused(layer) is not None
            for place in grams.places if fused(layer) is None else ():
                old, new = (place.matrices(m.read(place.name)) for m in (model, child))
                for i in range(len(old)):
                    gram = grams.gram((place.name, i))
                    assert gram is not None and gram.tokens == 4 * 24
                    wanted = method.solve(Problem(place.name, old[i].double(), gram), method.configure())
                    assert torch.equal(wanted.weight, new[i].double()), place.name
                    checked += 1
            grams.forget()
            return False

        walk(child, list(windows.split(2)), [grams], dtype=torch.float64, edit=edit)
    lines = json.loads((tmp_path / "out" / "secateur.json").read_text())["audit"]["linears"]
    plain = [line for line in lines if line["matrix"] is None]  # an expert may get no token of the batch that judges
    assert all(line["measured"] is not None for line in plain if line["action"] == "done")
    assert checked or routed == model.anatomy.n_layers
