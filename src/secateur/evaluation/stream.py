"""Models over windows, a batch and a slice of time at a time: batch x time x vocabulary never exists whole.

The base model runs over the whole batch once. Its last hidden states then pass through the causal model's own forward
slice by slice, with the base model standing aside, so that whatever a family does to its logits (scaling, soft caps,
biases) is done by its own code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from secateur.evaluation.streamed import Streamed
from secateur.evaluation.windows import IGNORE, Window

if TYPE_CHECKING:
    from secateur.tokens.settings import TokenReduction

#: Told a number of targets done and of all.
Progress = Callable[[int, int], None]
SLICE_ENTRIES = 1 << 23
"""Logits (float32 entries) alive per model at a time: 32 MiB; the formulas need a few times as much."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A model and how it reads the windows' ids.

    ``rows`` (v',) int64: the model's own id of each id of the windows. Its answer is then ln p at those rows, p over
    its whole vocabulary: a model with more tokens, asked about those it shares with one that was trimmed.
    ``reduction``: the tokens of a window before its first target are a prompt and are reduced inside the model.
    """

    model: Any
    rows: torch.Tensor | None = None
    reduction: TokenReduction | None = None

    @property
    def vocabulary(self) -> int:
        """Entries of one position's logits."""
        return int(self.model.config.get_text_config().vocab_size)

    def own(self, ids: torch.Tensor) -> torch.Tensor:
        """The model's ids of the windows' ``ids``."""
        return ids if self.rows is None else self.rows[ids]

    def slices(self, ids: torch.Tensor, start: int, width: int) -> Iterator[torch.Tensor]:
        """Logits (batch, at most width, vocabulary) float32 for positions from ``start`` on; ids (batch, time)."""
        given = self.own(ids).to(self.model.device)
        found = (
            self.model.slices(given, start, width)
            if isinstance(self.model, Streamed)
            else logit_slices(self.model, given, start, width, self.reduction)
        )
        for logits in found:
            yield logits if self.rows is None else logits.log_softmax(-1)[..., self.rows.to(logits.device)]


@dataclass(frozen=True, slots=True)
class Slice:
    """``targets`` (batch, n) with IGNORE where nothing is scored; ``sources`` (batch,); ``logits``: one per reader."""

    targets: torch.Tensor
    sources: torch.Tensor
    logits: tuple[torch.Tensor, ...]


@torch.no_grad()
def stream(
    readers: Sequence[Reader], windows: Sequence[Window], *, batch: int = 8, progress: Progress | None = None
) -> Iterator[Slice]:
    """All slices of all windows; the logits of one slice are gone when the next is asked for."""
    total, done = sum(len(w.inputs) for w in windows), 0
    largest = max(r.vocabulary for r in readers)
    parts = list(_batches(windows, batch, alike=any(r.reduction for r in readers)))
    for r in readers:
        if isinstance(r.model, Streamed):
            r.model.prepare([r.own(_padded([w.inputs for w in part], 0)) for part in parts])
    for part in parts:
        ids, targets = _padded([w.inputs for w in part], 0), _padded([w.targets for w in part], IGNORE)
        sources = torch.tensor([w.source for w in part])
        # sliding windows: the columns before the first target are context for all of the batch
        start = position = int((targets != IGNORE).any(0).int().argmax())
        width = max(1, SLICE_ENTRIES // (len(part) * largest))
        for logits in zip(*(r.slices(ids, start, width) for r in readers), strict=True):
            n = logits[0].shape[1]
            yield Slice(targets[:, position : position + n].to(logits[0].device), sources, logits)
            position += n
        done += sum(len(w.inputs) for w in part)
        if progress is not None:
            progress(done, total)


def _batches(windows: Sequence[Window], batch: int, *, alike: bool) -> Iterator[Sequence[Window]]:
    """At most ``batch`` windows at a time; ``alike``: all with the first target at the same place, so that what is
    before it can be a prompt."""
    first = [int((w.targets != IGNORE).int().argmax()) for w in windows] if alike else [0] * len(windows)
    order = sorted(range(len(windows)), key=lambda i: first[i])
    at = 0
    while at < len(order):
        same = [i for i in order[at : at + batch] if first[i] == first[order[at]]]
        yield [windows[i] for i in same]
        at += len(same)


def _padded(rows: Sequence[torch.Tensor], value: int) -> torch.Tensor:
    """(rows, longest); padding on the right, which nothing causal to its left can see."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def logit_slices(
    model: Any, ids: torch.Tensor, start: int, width: int, reduction: TokenReduction | None = None
) -> Iterator[torch.Tensor]:
    """Logits (batch, at most width, vocabulary) float32 of positions ``start``.. in order; ids (batch, time).

    ``reduction``: of the tokens before ``start``. Models whose causal forward does not go through ``base_model`` are
    run whole.
    """
    base, length = model.base_model, ids.shape[1]
    with _reduced(model, reduction, start):
        hidden = None if base is model else base(ids, use_cache=False)[0][:, start - length :]
    for at in range(start, length, width):
        here = slice(at - start, at - start + width)
        logits = None if hidden is None else _head(model, base, ids[:, at : at + width], hidden[:, here])
        if logits is None:
            with _reduced(model, reduction, start):
                whole = model(ids, use_cache=False).logits[:, start - length :]
            yield from (part.float() for part in whole.split(width, 1))
            return
        yield logits.float()


def _reduced(model: Any, reduction: TokenReduction | None, prompt: int) -> AbstractContextManager[Any]:
    from secateur.tokens.runtime import reduce_tokens  # it reads windows too

    return nullcontext() if reduction is None else reduce_tokens(model, reduction, prompt=prompt)


class _Known:
    """Stands for the output of a base model: its last hidden state, and None for everything else."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: int) -> torch.Tensor | None:
        return self.last_hidden_state if index == 0 else None

    def __getattr__(self, name: str) -> None:
        return None


def _head(model: Any, base: Any, ids: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor | None:
    """The causal model's logits for hidden states that are known; None if its forward went another way."""
    asked = False

    def known(*_: Any, **__: Any) -> _Known:
        nonlocal asked
        asked = True
        return _Known(hidden)

    before = vars(base).get("forward")
    base.forward = known
    try:
        logits: torch.Tensor = model(ids, use_cache=False).logits
    finally:
        if before is None:
            del base.forward
        else:
            base.forward = before
    return logits if asked else None


__all__ = ["Progress", "Reader", "Slice", "logit_slices", "stream"]
