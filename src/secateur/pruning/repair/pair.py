"""Parent and child walked side by side: the same text through both, one layer of each in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from secateur.calibration.journal import Journal, streams
from secateur.calibration.observer import Enough, Layer
from secateur.calibration.walker import Stream, open_stream
from secateur.model import Model

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Pair:
    """One layer of the child with the parent layer it came from. ``rows``: kept channels of the residual stream.

    ``after[b]``: the parent's stream behind its layer, (batch, tokens, hidden), once it was asked for.
    """

    parent: Layer
    child: Layer
    rows: torch.Tensor
    parent_stream: Stream
    child_stream: Stream
    after: dict[int, torch.Tensor]

    def run(self, side: str, batch: int) -> torch.Tensor:
        """Output of one side's layer for one batch, from the hidden states that enter it."""
        stream, layer = (self.parent_stream, self.parent) if side == "parent" else (self.child_stream, self.child)
        return stream.calls.run(layer.block, layer.index, batch, stream.hidden[batch])

    def behind(self, batch: int) -> torch.Tensor:
        """The parent's stream behind its layer; the layer is run for it once."""
        if batch not in self.after:
            self.after[batch] = self.run("parent", batch)
        return self.after[batch]

    def read(self, side: str, batch: int, module: nn.Module, *, through: bool = False) -> dict[str, torch.Tensor]:
        """Input and output of a module of one side, see :func:`captured`; what lies behind it is not computed, unless
        ``through``: then the run of the parent that :meth:`behind` needs anyway is the one that is read."""
        if through and side == "parent" and batch not in self.after:
            with captured(module) as seen:
                self.behind(batch)
            return seen

        def leave(m: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            raise Enough

        with captured(module) as seen, hooked(module, leave), suppress(Enough):
            self.run(side, batch)
        return seen

    def target(self, batch: int) -> torch.Tensor:
        """The parent's stream behind the layer on the kept channels, (batch, tokens, d)."""
        return self.behind(batch)[..., self.rows]

    @property
    def batches(self) -> range:
        return range(len(self.child_stream.hidden))


#: Repairs one layer in place; called once per child layer. Returns what the repaired layer puts out, for the batches
#: for which that is at hand.
Visit = Callable[[Pair], Mapping[int, torch.Tensor]]


@torch.no_grad()
def walk_pair(
    parent: Model,
    child: Model,
    layers: Sequence[int],
    rows: Sequence[int],
    batches: Sequence[tuple[torch.Tensor, torch.Tensor]],
    visit: Visit,
    *,
    device: str = "cpu",
    book: Book | None = None,
    progress: Progress | None = None,
) -> None:
    """Stream ``batches`` of (parent ids, child ids) through both models.

    ``layers[j]`` is the parent layer child layer j came from; parent layers in between are run and passed by. With a
    ``book`` a walk that was interrupted goes on at the layer it was in.
    """
    a = open_stream(parent, [p for p, _ in batches], device=device)
    b = open_stream(child, [c for _, c in batches], device=device)
    kept = torch.as_tensor(list(rows))
    start = 0 if book is None else book.resume(a, b)
    at = layers[start - 1] + 1 if start else 0
    for j, old in list(enumerate(layers))[start:]:
        while at < old:
            with a.loaded(at) as skipped:
                a.advance(skipped)
            at += 1
        with a.loaded(old) as parent_layer, b.loaded(j) as child_layer:
            pair = Pair(parent_layer, child_layer, kept, a, b, {})
            ready = visit(pair)
            for n in pair.batches:
                after = pair.behind(n)
                b.hidden[n] = ready[n] if n in ready else pair.run("child", n)
                a.hidden[n] = after
        at = old + 1
        if book is not None:
            book.save(j + 1, a, b)
        if progress is not None:
            progress(j + 1, len(layers))


@dataclass(frozen=True, slots=True)
class Book:
    """The journal of a walk of two models. ``told()``: what the visitor wants to be reminded of, as JSON; ``hear``:
    reminds it of that. Tensors the visitor keeps, it keeps by itself."""

    journal: Journal
    told: Callable[[], Mapping[str, Any]]
    hear: Callable[[Mapping[str, Any]], None]

    def resume(self, parent: Stream, child: Stream) -> int:
        """Restore both streams; returns how many layers of the child are done."""
        state = self.journal.found()
        if state is None:
            return 0
        for name, stream in (("parent", parent), ("child", child)):
            for b, before in enumerate(stream.hidden):
                stream.hidden[b] = state.read(f"{name}.{b}").to(before.device)
        self.hear(state.note)
        return state.at

    def save(self, done: int, parent: Stream, child: Stream) -> None:
        parts = [*streams("parent", parent.hidden), *streams("child", child.hidden)]
        self.journal.save(done, parts, self.told())


@contextmanager
def captured(module: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Input and output of a module's last call, as ``"in"`` and ``"out"``."""
    seen: dict[str, torch.Tensor] = {}

    def look(m: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        seen["in"], seen["out"] = args[0], out

    with hooked(module, look):
        yield seen


@contextmanager
def hooked(module: nn.Module, hook: Callable[[nn.Module, tuple[Any, ...], Any], Any]) -> Iterator[None]:
    """A forward hook for a while; hooks are called in the order in which they were set."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
