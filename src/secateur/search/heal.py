"""A short distillation of a candidate in memory, by the loss, the optimizer and the loop of :mod:`secateur.train`.

The parent's answers to the lessons are remembered, so no candidate asks again; the likeliest tokens stand for
them as with `distill --top-k`. The candidate is a copy: nothing of it stays but its score.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from secateur.errors import UsageError
from secateur.search.remembered import Remembered
from secateur.train.distribution import TopK
from secateur.train.loop import Loop, make_optimizer
from secateur.train.module import Distiller
from secateur.train.settings import Settings

if TYPE_CHECKING:
    from secateur.search.bench import Bench

#: Windows of a step. Short runs need many steps more than large batches.
BATCH = 4
#: Peak of the learning rate; short runs on freshly cut models bear more than the 1e-4 of long ones.
RATE = 1e-3


def heal(
    module: Any, bench: Bench, tokens: int, *, rate: float = RATE, watch: Callable[[int], None] = lambda done: None
) -> list[float]:
    """Distil ``module`` in place on the first ``tokens`` of the lessons; the loss of every step. Deterministic.

    ``watch`` is told the tokens that are done after every step.

    Raises UsageError without lessons, or when they are fewer than one step.
    """
    tutor = bench.tutor
    if tutor is None:
        raise UsageError("a stage heals, but the search was given no text for it")
    length = tutor.windows.shape[1]
    settings = Settings(tokens=tokens, length=length, batch=BATCH, micro_batch=BATCH, lr=rate, chunk=4 * length)
    tutor.ask(range(min(settings.steps * BATCH, len(tutor.windows))))
    module.requires_grad_(True)
    distiller = Distiller(module, None, settings)
    optimizer = make_optimizer(distiller, settings)
    torch.manual_seed(bench.seed)
    windows: Any = _Ids(tutor.windows)
    answers: Any = _Answers(tutor)
    loop = Loop(_Alone(), distiller, optimizer, windows, settings, Path(), answers)
    distiller.train()
    losses = []
    for step in range(settings.steps):
        losses.append(loop.take(step)[0])
        watch((step + 1) * BATCH * length)
    module.requires_grad_(False)
    return losses


def whole_steps(tokens: int, bench: Bench) -> int:
    """``tokens`` as a whole number of steps, at least one."""
    length = bench.windows.shape[1] if bench.lessons is None else bench.lessons.shape[1]
    return max(1, round(tokens / (BATCH * length))) * BATCH * length


class _Ids:
    """Lessons by number, as the loop reads windows; they start over behind their end."""

    def __init__(self, windows: Tensor) -> None:
        self.windows = windows

    def rows(self, start: int, stop: int) -> Tensor:
        return self.windows[[i % len(self.windows) for i in range(start, stop)]]


class _Answers:
    """The parent's answers to them, as the loop reads a cache."""

    def __init__(self, tutor: Remembered) -> None:
        self.tutor = tutor

    def rows(self, start: int, stop: int) -> TopK:
        return self.tutor.answers([i % len(self.tutor.windows) for i in range(start, stop)])


class _Alone:
    """What the loop asks of accelerate, for one process that shares nothing with others."""

    num_processes, process_index, device = 1, 0, torch.device("cpu")

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def clip_grad_norm_(self, parameters: Any, most: float) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, most)

    def reduce(self, values: Tensor, how: str) -> Tensor:
        return values
