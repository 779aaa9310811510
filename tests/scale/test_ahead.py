"""Reading ahead: the same results, one block ahead and never more, errors where the block is wanted.

Overlap is shown by the order of calls: a reader that waits for the computation, and a computation that waits for the
reader, both come to an end.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from secateur.calibration.ahead import Ahead, Lane
from secateur.calibration.observer import Layer
from secateur.calibration.walker import open_stream, walk
from secateur.errors import CheckpointError
from secateur.model import Model, open_model
from tests.contract.harness import Parent, ids

from .conftest import FAMILIES

WAIT = 60.0  # seconds after which a wait has failed


class Watched:
    """A model's ``read`` that writes down (what, layer) and, for layer i + 1, waits until layer i computes."""

    def __init__(self, model: Model) -> None:
        self.plain, self.anatomy = model.read, model.anatomy
        self.log: list[tuple[str, int]] = []
        self.reading = [threading.Event() for _ in range(model.anatomy.n_layers + 1)]
        self.computing = [threading.Event() for _ in range(model.anatomy.n_layers)]
        self.failed: list[str] = []
        self.gated = False
        model.read = self.read  # type: ignore[method-assign]

    def read(self, name: str) -> torch.Tensor:
        layer = self.anatomy.tensors[name].layer
        if layer is not None and self.gated:
            self.log.append(("read", layer))
            self.reading[layer].set()
            if layer and not self.computing[layer - 1].wait(WAIT):
                self.failed.append(f"layer {layer} was not read while layer {layer - 1} computed")
        return self.plain(name)


class Computing:
    """An observer that is in the middle of a layer's computation until the next layer is being read."""

    def __init__(self, watched: Watched) -> None:
        self.state: dict[str, torch.Tensor] = {}
        self.watched = watched

    def attach(self, layer: Layer) -> list[Any]:
        self.watched.log.append(("compute", layer.index))
        self.watched.computing[layer.index].set()
        return []

    def block(self, layer: Layer, before: torch.Tensor, after: torch.Tensor) -> None:
        last = layer.index + 1 == self.watched.anatomy.n_layers
        if not last and not self.watched.reading[layer.index + 1].wait(WAIT):
            self.watched.failed.append(f"layer {layer.index + 1} was not read during layer {layer.index}")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_next_block_is_read_while_one_computes_and_no_other(name: str, parents: dict[str, Parent]) -> None:
    model = open_model(parents[name].folder)
    want = walk(open_model(parents[name].folder), [ids()], []).logits(0)
    watched = Watched(model)
    stream = open_stream(model, [ids()])
    watched.gated = True
    load = stream.skeleton.load

    def loaded(index: int) -> torch.nn.Module:
        block = load(index)
        watched.log.append(("loaded", index))
        return block

    stream.skeleton.load = loaded  # type: ignore[method-assign]
    observer = Computing(watched)
    for index in range(model.anatomy.n_layers):
        with stream.loaded(index) as layer:
            observer.attach(layer)
            stream.advance(layer)
            observer.block(layer, stream.hidden[0], stream.hidden[0])
    assert not watched.failed
    last = -1
    for what, layer in watched.log:
        last = layer if what == "loaded" else last
        assert what != "read" or layer <= last + 1, "more than one block ahead"
    watched.gated = False
    assert torch.equal(walk(model, [ids()], []).logits(0), want)


def test_what_the_reader_meets_is_raised_where_the_block_is_wanted(parents: dict[str, Parent]) -> None:
    model = open_model(parents["llama"].folder)
    plain = model.read
    seen: list[int] = []

    def broken(name: str) -> torch.Tensor:
        if model.anatomy.tensors[name].layer == 2 and threading.current_thread() is not threading.main_thread():
            raise CheckpointError("the disk is gone")
        return plain(name)

    class Seen(Computing):
        def attach(self, layer: Layer) -> list[Any]:
            seen.append(layer.index)
            return []

        def block(self, layer: Layer, before: torch.Tensor, after: torch.Tensor) -> None:
            pass

    watched = Watched(model)
    model.read = broken  # type: ignore[method-assign]
    with pytest.raises(CheckpointError, match="the disk is gone"):
        walk(model, [ids()], [Seen(watched)])
    assert seen == [0, 1]


def test_one_block_at_a_time_and_only_what_was_asked_for() -> None:
    read: list[str] = []
    go = threading.Event()

    def slow(name: str) -> torch.Tensor:
        assert go.wait(WAIT)
        read.append(name)
        return torch.full((1,), float(len(read)))

    ahead = Ahead(slow, torch.device("cpu"))
    assert ahead.take(0) == {}
    ahead.start(1, ["a", "b"])
    ahead.start(1, ["a", "b"])
    assert ahead.take(2) == {}, "another block's tensors were handed out"
    go.set()
    ahead.start(3, ["c"])  # nobody came for block 1
    assert list(ahead.take(3)) == ["c"] and read == ["a", "b", "c"]
    assert ahead.take(3) == {}, "a block was handed out twice"


def test_an_error_of_a_block_nobody_wanted_is_dropped() -> None:
    def read(name: str) -> torch.Tensor:
        if name == "bad":
            raise CheckpointError("bad")
        return torch.zeros(1)

    ahead = Ahead(read, torch.device("cpu"))
    ahead.start(1, ["bad"])
    ahead.start(2, ["good"])
    assert list(ahead.take(2)) == ["good"]
    ahead.start(3, ["bad"])
    with pytest.raises(CheckpointError, match="bad"):
        ahead.take(3)


def test_a_changed_tensor_wins_over_the_one_read_ahead(parents: dict[str, Parent]) -> None:
    model = open_model(parents["llama"].folder)
    name = next(d.name for d in model.anatomy.tensors.values() if d.layer == 1 and d.key.endswith("down_proj.weight"))
    changed: dict[str, torch.Tensor] = {}
    stream = open_stream(model, [ids()], changed=changed)
    with stream.loaded(0):
        changed[name] = torch.zeros_like(model.read(name))  # while layer 1 is being read
    with stream.loaded(1) as layer:
        assert not layer.block.mlp.down_proj.weight.any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT TESTED: the copy stream needs a GPU")
@pytest.mark.parametrize("name", FAMILIES)
def test_on_a_gpu(name: str, parents: dict[str, Parent]) -> None:
    device = torch.device("cuda")
    host = {"a": torch.randn(257, 33), "b": torch.arange(7)}
    lane = Lane(device)
    there = lane.carry(host)
    lane.hand_over(there)
    assert all(t.is_cuda and torch.equal(t.cpu(), host[n]) for n, t in there.items())
    model = open_model(parents[name].folder)
    want = walk(model, [ids()], []).logits(0)
    got = walk(model, [ids()], [], device="cuda").logits(0).cpu()
    assert float((want - got).abs().max() / want.std()) < 1e-3


def test_text_on_disk_gives_the_same_bits(parents: dict[str, Parent], tmp_path: Path) -> None:
    from secateur.calibration.spill import states

    model, batches = open_model(parents["nemotron_h"].folder), list(ids().split(1))
    want = walk(model, batches, [])
    with states(tmp_path / "spill") as hidden:
        got = walk(model, batches, [], hidden=hidden)
        assert len(list((tmp_path / "spill").rglob("batch-*"))) == len(batches)
        assert all(torch.equal(got.logits(b), want.logits(b)) for b in range(len(batches)))
    assert list((tmp_path / "spill").iterdir()) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_only_the_rows_of_the_text_are_held(name: str, parents: dict[str, Parent]) -> None:
    model = open_model(parents[name].folder)
    tokens = torch.tensor([[5, 9, 9, 5]])
    done = walk(model, [tokens], [])
    embedding = done.skeleton.model.get_input_embeddings()
    assert embedding.weight.shape[0] == 1, "after the text is embedded nothing needs the table"
    whole = walk(model, [torch.cat([tokens, torch.tensor([[1, 2, 3, 4]])], 1)], [])
    assert torch.allclose(done.logits(0), whole.logits(0)[:, :4], atol=1e-5)
    with pytest.raises(Exception, match="row of the embedding"):
        open_stream(model, [tokens]).skeleton.model.get_input_embeddings()(torch.tensor([7]))
