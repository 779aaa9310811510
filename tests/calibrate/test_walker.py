"""The walker against the plain forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from secateur.calibration import journal
from secateur.calibration.observer import Layer
from secateur.calibration.walker import walk
from secateur.model import open_model
from tests.contract.harness import Parent, distance, double_precision, ids, load, logits
from tests.contract.rows import ROWS

ROWS_ONE_EACH = [n for n in ROWS if "@" not in n]


class Spy:
    """Counts tokens and keeps block inputs; resumes like any observer."""

    def __init__(self) -> None:
        self.state: dict[str, torch.Tensor] = {}
        self.seen: list[int] = []

    def __repr__(self) -> str:
        return "Spy()"  # the journal compares what observers say of themselves

    def attach(self, layer: Layer) -> list[Any]:
        self.seen.append(layer.index)
        return []

    def block(self, layer: Layer, before: torch.Tensor, after: torch.Tensor) -> None:
        key = f"moved.{layer.index}"
        self.state[key] = self.state.get(key, torch.zeros(())) + (after - before).abs().sum()


@pytest.mark.parametrize("name", ROWS_ONE_EACH)
def test_walk_equals_forward(name: str, parents: dict[str, Parent]) -> None:
    parent = parents[name]
    model = open_model(parent.folder)
    tokens = ids()
    spy = Spy()
    with double_precision():
        done = walk(model, [tokens[:1], tokens[1:]], [spy], dtype=torch.float64)
        got = torch.cat([done.logits(0), done.logits(1)])
        assert all(p.is_meta for b in done.skeleton.blocks for p in b.parameters()), "a block kept its weights"
    assert spy.seen == list(range(model.anatomy.n_layers))
    # recurrent_gemma keeps parts of its recurrence in float32 whatever the dtype
    tolerance = 1e-6 if name == "recurrent_gemma" else 1e-9
    assert distance(logits(load(parent.folder)), got) < tolerance
    assert all(v > 0 for v in spy.state.values())


@pytest.mark.parametrize("name", ["nemotron_h", "llama"])
def test_an_interrupted_walk_resumes_with_equal_statistics(
    name: str, parents: dict[str, Parent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "EVERY_SECONDS", 0.0)
    model = open_model(parents[name].folder)
    batches = list(ids().split(1))
    whole = Spy()
    want = walk(model, batches, [whole]).logits(0)

    class Interrupted(Spy):
        def attach(self, layer: Layer) -> list[Any]:
            if layer.index == 2:
                raise KeyboardInterrupt
            return super().attach(layer)

    with pytest.raises(KeyboardInterrupt):
        walk(model, batches, [Interrupted()], journal=tmp_path / "walk")
    again = Spy()
    got = walk(model, batches, [again], journal=tmp_path / "walk").logits(0)
    assert again.seen[0] == 2, "the walk began again instead of resuming"
    assert torch.equal(want, got)
    assert {k: float(v) for k, v in whole.state.items()} == {k: float(v) for k, v in again.state.items()}
    assert not list((tmp_path / "walk").iterdir()), "the finished walk left its journal"


def test_an_edit_changes_what_later_layers_see(parents: dict[str, Parent]) -> None:
    model = open_model(parents["llama"].folder)
    plain = walk(model, [ids()], []).logits(0)

    def silence_first(layer: Layer) -> bool:
        if layer.index == 0:
            for p in layer.block.parameters():
                p.data.zero_()
        return layer.index == 0

    edited = walk(model, [ids()], [], edit=silence_first).logits(0)
    assert distance(plain, edited) > 1e-2
    assert torch.equal(plain, walk(model, [ids()], []).logits(0)), "an edit reached the files"


def test_parts_are_read_off_the_layout(parents: dict[str, Parent]) -> None:
    anatomy = open_model(parents["nemotron_h"].folder).anatomy
    layer = Layer(0, anatomy.kinds[0], torch.nn.Identity(), anatomy)
    s = anatomy.sizes
    inner = s["g"] * s["h"] * s["p"]
    assert layer.part("mixer.in_proj.weight", "x") == (0, slice(inner, 2 * inner))
    with pytest.raises(KeyError):
        layer.part("mixer.in_proj.weight", "q")
