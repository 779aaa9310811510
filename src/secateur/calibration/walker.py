"""The one loop: text through the model, block by block, with one block's weights in memory.

The calls of all blocks (masks, positions) are recorded once by running the model with recorders in their place. Then,
layer by layer: fill the block from disk, run every batch through it while observers look on, optionally edit its
weights and run again, free it; meanwhile the next block's tensors are read. Memory: one block and the tensors of the
next, the rows of the embedding that the text names, the hidden states of all batches (or of one, with ``spill``), what
observers collect.

Progress and resuming are here and nowhere else. Under torchrun every rank walks its share of the batches and observers
are summed at the end.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from secateur.anatomy import layout as lo
from secateur.anatomy.anatomy import Anatomy
from secateur.calibration.journal import WalkJournal
from secateur.calibration.ranks import add_up, rank_and_world
from secateur.calibration.skeleton import Skeleton, quiet
from secateur.calibration.together import Together
from secateur.errors import UsageError
from secateur.kernels import fast
from secateur.model import Model

#: Told the number of finished (layer, batch) steps and of all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Layer:
    """One loaded decoder layer as observers see it. ``kinds``: its sub-blocks, in order.

    ``reload``: fills the block from disk again, and from what the walk was told has changed.
    """

    index: int
    kinds: tuple[str, ...]
    block: nn.Module
    anatomy: Anatomy
    reload: Callable[[], object] = lambda: None

    def module(self, name: str) -> nn.Module | None:
        """The sub-module that holds the on-disk tensor ``name`` (relative to the layer), None when it is fused away."""
        path = name.rpartition(".")[0]
        try:
            return self.block.get_submodule(path)
        except AttributeError:
            return None

    def part(self, name: str, label: str) -> tuple[int, slice]:
        """(tensor dimension, slice) of a labelled part of a tensor: ``part("mixer.in_proj.weight", "x")``."""
        for _, _, pattern, layout in self.anatomy.layer_tensors(self.index):
            if pattern == name:
                dim, start, stop = lo.labels(layout, self.anatomy.sizes)[label]
                return dim, slice(start, stop)
        raise KeyError(f"layer {self.index} has no tensor {name!r}")


class Observer(Protocol):
    """Collects statistics while blocks run.

    ``state`` holds tensors that add up over batches and ranks; it is what the journal saves and ranks reduce.
    """

    state: dict[str, torch.Tensor]

    def attach(self, layer: Layer) -> list[Any]:
        """Register hooks on the layer; returns their handles."""
        ...

    def block(self, layer: Layer, before: torch.Tensor, after: torch.Tensor) -> None:
        """Look at the residual stream around the layer. Shapes (batch, tokens, hidden)."""
        ...


class Enough(Exception):  # noqa: N818  # no error: a way out of the block
    """Raised by an observer from inside a block: it has seen all it wants of this batch, what comes behind need not be
    computed. Only a lone observer of a walk that edits may, since the outputs are then computed after the edit."""


#: Changes a loaded layer's weights after observation; returns True when the outputs must be computed again.
Edit = Callable[[Layer], bool]


@dataclass(frozen=True, slots=True)
class Walk:
    """What is left after a walk: the last hidden states per batch, and the skeleton with its stem loaded."""

    skeleton: Skeleton
    hidden: Sequence[torch.Tensor]
    arity: Mapping[type, int]

    def logits(self, batch: int) -> torch.Tensor:
        """Logits of one batch, shape (batch, tokens, vocab), through final norm and head."""
        return self.head(self.hidden[batch])

    @torch.no_grad()
    def head(self, states: torch.Tensor) -> torch.Tensor:
        """Logits (batch, tokens, vocab) of hidden states (batch, tokens, hidden); loads the head when first asked."""
        self.skeleton.load_head()
        ids = torch.zeros(states.shape[:2], dtype=torch.long, device=self.skeleton.device)
        with _replaced(self.skeleton, self.arity, lambda index, given: states):
            logits: torch.Tensor = self.skeleton.model(ids, use_cache=False).logits
        return logits


def walk(
    model: Model,
    batches: Sequence[torch.Tensor],
    observers: Sequence[Observer],
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    edit: Edit | None = None,
    changed: Mapping[str, torch.Tensor] | None = None,
    together: Together | None = None,
    journal: Path | None = None,
    keep: bool = False,
    hidden: MutableSequence[torch.Tensor] | None = None,
    progress: Progress | None = None,
) -> Walk:
    """Stream ``batches`` (token ids, each (batch, tokens)) through the model.

    ``changed``: on-disk names and tensors that stand in for those on disk from now on; an edit may add to it and
    reload its layer. ``together``: batches run through a block side by side, for an observer that lets each wait for
    the others; memory then holds what all of them have open in one block. ``journal``: a folder from which an
    interrupted walk resumes at the layer it was in; with ``keep`` the finished walk stays in it. ``hidden``: an empty
    list for the hidden states, where they shall not be in memory (see :mod:`secateur.calibration.spill`). Raises
    UsageError without batches.
    """
    if not batches:
        raise UsageError("no calibration text: the walker got no batch")
    mine = _share(batches)
    stream = open_stream(model, mine, dtype=dtype, device=device, changed=changed, hidden=hidden)
    book = WalkJournal(journal, model, mine, observers, dtype) if journal is not None else None
    start = book.resume(stream.hidden) if book is not None else 0
    total = model.anatomy.n_layers * len(mine)
    for index in range(start, model.anatomy.n_layers):
        with stream.loaded(index) as layer:
            _one_layer(layer, stream, observers, edit, together)
        if book is not None:
            book.save(index + 1, stream.hidden)
        if progress is not None:
            progress((index + 1) * len(mine), total)
    if book is not None and keep:
        book.save(model.anatomy.n_layers, stream.hidden, force=start < model.anatomy.n_layers)
    elif book is not None:
        book.close()
    reduce_states(observers)
    return Walk(stream.skeleton, stream.hidden, stream.calls.arity)


@dataclass(frozen=True, slots=True)
class Stream:
    """Text on its way through one model: ``hidden[b]`` is the residual stream of batch b before the next layer."""

    skeleton: Skeleton
    hidden: MutableSequence[torch.Tensor]
    calls: _Calls

    @contextlib.contextmanager
    def loaded(self, index: int) -> Iterator[Layer]:
        """Layer ``index`` with its weights and fast kernels, given back afterwards; the next one is on its way."""
        anatomy = self.skeleton.source.anatomy
        block = self.skeleton.load(index)
        self.skeleton.ahead(index + 1)
        try:
            with fast(block):
                yield Layer(index, anatomy.kinds[index], block, anatomy, functools.partial(self.skeleton.load, index))
        finally:
            self.skeleton.free(index)

    def runs(self, layer: Layer, together: Together | None) -> list[Callable[[], torch.Tensor]]:
        """What gives the layer's output for each batch: by running it, or all of them side by side with the first."""

        def run(b: int) -> torch.Tensor:
            return self.calls.run(layer.block, layer.index, b, self.hidden[b])

        alone = [functools.partial(run, b) for b in range(len(self.hidden))]
        if together is None:
            return list(alone)
        outputs = iter(together.run(alone))
        return [functools.partial(next, outputs) for _ in alone]

    @torch.no_grad()
    def advance(self, layer: Layer) -> None:
        """Replace the hidden states by the layer's outputs."""
        for b, before in enumerate(self.hidden):
            self.hidden[b] = self.calls.run(layer.block, layer.index, b, before)


def open_stream(
    model: Model,
    batches: Sequence[torch.Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    changed: Mapping[str, torch.Tensor] | None = None,
    hidden: MutableSequence[torch.Tensor] | None = None,
) -> Stream:
    """Embed ``batches`` and record every block's call. Memory: what stands outside the layers, of the embedding the
    rows of the text; the hidden states, which go into the empty list ``hidden`` where one is given."""
    skeleton = Skeleton(model, dtype=dtype, device=device, changed=changed)
    skeleton.load_stem(torch.cat([b.flatten() for b in batches]))
    hidden = [] if hidden is None else hidden
    calls = _record(skeleton, batches, hidden)
    skeleton.look_up(torch.zeros(1, dtype=torch.long))  # what a head is run on, see Walk.head
    return Stream(skeleton, hidden, calls)


@torch.no_grad()
def _one_layer(
    layer: Layer, stream: Stream, observers: Sequence[Observer], edit: Edit | None, together: Together | None
) -> None:
    handles = [h for o in observers for h in o.attach(layer)]
    after: list[torch.Tensor] = []
    try:
        for b, (before, run) in enumerate(zip(stream.hidden, stream.runs(layer, together), strict=True)):
            try:
                out = run()
            except Enough:
                if edit is None or len(observers) > 1:
                    raise
                continue
            for o in observers:
                o.block(layer, before, out)
            if edit is None:
                stream.hidden[b] = out
            else:
                after.append(out)
    finally:
        for h in handles:
            h.remove()
    if edit is None:
        return
    if edit(layer) or len(after) < len(stream.hidden):
        stream.advance(layer)
    else:
        stream.hidden[:] = after


class _Calls:
    """The recorded arguments of every block, per batch; tensors equal in all batches are kept once."""

    def __init__(self) -> None:
        self.args: dict[tuple[int, int], tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self.arity: dict[type, int] = {}
        self.batch = 0

    def add(self, layer: int, batch: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = self.args.get((layer, 0))
        if first is not None:
            args = tuple(_same(a, b) for a, b in zip(args, first[0], strict=True))
            kwargs = {k: _same(v, first[1].get(k)) for k, v in kwargs.items()}
        self.args[layer, batch] = args, kwargs

    def run(self, block: nn.Module, layer: int, batch: int, hidden: torch.Tensor) -> torch.Tensor:
        """The block's output hidden states."""
        args, kwargs = self.args[layer, batch]
        out = block(hidden, *args, **kwargs)
        states: torch.Tensor = out[0] if isinstance(out, tuple) else out
        return states


def _same(value: Any, first: Any) -> Any:
    """``first`` when both are equal, so that equal masks and positions are stored once."""
    if isinstance(value, tuple) and isinstance(first, tuple) and len(value) == len(first):
        return tuple(_same(a, b) for a, b in zip(value, first, strict=True))
    if isinstance(value, torch.Tensor) and isinstance(first, torch.Tensor) and value.shape == first.shape:
        return first if value is first or torch.equal(value, first) else value
    return value


class _Stand(nn.Module):
    """Stands in for a block: hands its call to ``look`` and returns what that gives, in the block's own form.

    ``arity``: 0 when the block returns a tensor, else the length of its tuple.
    """

    def __init__(self, original: nn.Module, look: Callable[..., torch.Tensor], arity: int) -> None:
        super().__init__()
        self.look, self.arity = look, arity
        self.__dict__["original"] = original  # not a child: its weights stay out of this module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["original"], name)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        out = self.look(hidden_states, args, kwargs)
        return (out, *[None] * (self.arity - 1)) if self.arity else out


@contextlib.contextmanager
def _stands(skeleton: Skeleton, stands: Mapping[int, nn.Module]) -> Iterator[None]:
    """Blocks replaced for a while."""
    originals = list(skeleton.blocks)
    for i, stand in stands.items():
        skeleton.blocks[i] = stand
    try:
        with quiet():
            yield
    finally:
        for i, block in enumerate(originals):
            skeleton.blocks[i] = block


def _replaced(
    skeleton: Skeleton, arity: Mapping[type, int], give: Callable[[int, torch.Tensor], torch.Tensor]
) -> contextlib.AbstractContextManager[None]:
    """Every block replaced by ``give(index, hidden states)``."""
    stands = {}
    for i, block in enumerate(skeleton.blocks):
        stands[i] = _Stand(block, lambda h, args, kwargs, i=i: give(i, h), arity[type(block)])
    return _stands(skeleton, stands)


@torch.no_grad()
def _record(skeleton: Skeleton, batches: Sequence[torch.Tensor], hidden: MutableSequence[torch.Tensor]) -> _Calls:
    """The calls of every layer; the hidden states entering layer 0 are appended to ``hidden``, per batch."""
    calls = _Calls()
    calls.arity = _arity(skeleton, batches[0][:1, :8])
    stands: dict[int, nn.Module] = {}

    def note(index: int, states: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        if index == 0:
            hidden.append(states)
        calls.add(index, calls.batch, args, kwargs)
        return states

    for i, block in enumerate(skeleton.blocks):
        stands[i] = _Stand(block, functools.partial(note, i), calls.arity[type(block)])
    with _stands(skeleton, stands):
        for calls.batch, ids in enumerate(batches):
            _body(skeleton.model)(ids.to(skeleton.device), use_cache=False)
    return calls


class _FoundError(Exception):
    """Ends a probe as soon as the block has answered."""


def _arity(skeleton: Skeleton, ids: torch.Tensor) -> dict[type, int]:
    """What each class of block returns (see :class:`_Stand`): found by running one of each class on a few tokens."""
    found: dict[type, int] = {}
    for index, block in enumerate(list(skeleton.blocks)):
        if type(block) in found:
            continue

        def look(module: nn.Module, args: Any, out: Any) -> None:
            found[type(module)] = len(out) if isinstance(out, tuple) else 0
            raise _FoundError

        before = {
            i: _Stand(b, lambda h, args, kwargs: h, found[type(b)]) for i, b in enumerate(skeleton.blocks) if i < index
        }
        skeleton.load(index)
        handle = block.register_forward_hook(look)
        try:
            with _stands(skeleton, before), contextlib.suppress(_FoundError):
                _body(skeleton.model)(ids.to(skeleton.device), use_cache=False)
        finally:
            handle.remove()
            skeleton.free(index)
    return found


def _body(model: Any) -> nn.Module:
    """The model without its head."""
    body: nn.Module = getattr(model, model.base_model_prefix)
    return body


def _share(batches: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """This rank's batches."""
    rank, world = rank_and_world()
    if len(batches) < world:
        raise UsageError(f"{len(batches)} calibration batches do not go round {world} processes; give more samples")
    return list(batches)[rank::world]


def reduce_states(observers: Sequence[Observer]) -> None:
    """Sum observers' states over all ranks (no-op in a single process)."""
    for o in observers:
        add_up(o.state)
