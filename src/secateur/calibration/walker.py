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

import torch

from secateur.calibration.calls import Calls, record, replaced
from secateur.calibration.journal import WalkJournal
from secateur.calibration.observer import Enough, Layer, Observer
from secateur.calibration.ranks import add_up, rank_and_world
from secateur.calibration.skeleton import Skeleton
from secateur.calibration.together import Together
from secateur.errors import UsageError
from secateur.kernels import fast
from secateur.model import Model

#: Told the number of finished (layer, batch) steps and of all.
Progress = Callable[[int, int], None]

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
        with replaced(self.skeleton, self.arity, lambda index, given: states):
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
    calls: Calls

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
    calls = record(skeleton, batches, hidden)
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
