"""The training loop, once for one process, data parallelism and FSDP."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import UsageError
from secateur.train import state
from secateur.train.cache import TeacherCache
from secateur.train.log import Log
from secateur.train.module import PARTS
from secateur.train.settings import Settings, TrainingError
from secateur.train.windows import Windows
from secateur.train.zeros import Zeros


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step: means over its tokens in nats; ``seconds`` since the run began, pauses left out.

    ``held_out``: losses on held-out text after it (see :mod:`secateur.train.held_out`), where they were measured.
    """

    step: int
    tokens: int
    loss: float
    divergence: float
    ce: float
    hidden: float
    lr: float
    gradient_norm: float
    tokens_per_second: float
    seconds: float
    held_out: Mapping[str, float]

    def line(self) -> dict[str, float]:
        """What the log says of it."""
        named = {name: getattr(self, name) for name in self.__slots__ if name != "held_out"}
        return {**named, **self.held_out}


OnStep = Callable[[Step], None]


def make_optimizer(module: nn.Module, settings: Settings) -> torch.optim.AdamW:
    """AdamW (0.9, 0.95); decay for matrices only, not for norms, biases and what a layer exempts (A_log and D of a
    scan)."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for _, p in state.trained(module):
        groups[p.ndim >= 2 and not getattr(p, "_no_weight_decay", False)].append(p)
    tables = [
        {"params": ps, "weight_decay": settings.weight_decay if decay else 0.0} for decay, ps in groups.items() if ps
    ]
    return torch.optim.AdamW(tables, lr=settings.lr, betas=(0.9, 0.95))


def share(settings: Settings, processes: int, index: int) -> range:
    """Which windows of a batch are this process's. UsageError when the batch does not divide."""
    each, rest = divmod(settings.batch, processes)
    if rest:
        raise UsageError(f"batch {settings.batch} does not divide among {processes} processes")
    return range(index * each, (index + 1) * each)


class Loop:
    """Runs steps of a prepared ``module``; ``cache`` replaces the teacher inside it. ``measured``: held-out losses
    after so many steps, where it is time for them. ``zeros``: what stays zero."""

    def __init__(
        self,
        accelerator: Any,
        module: nn.Module,
        optimizer: Any,
        windows: Windows,
        settings: Settings,
        work: Path,
        cache: TeacherCache | None,
        measured: Callable[[int], dict[str, float]] = lambda step: {},
    ) -> None:
        self.accelerator, self.module, self.optimizer = accelerator, module, optimizer
        self.windows, self.settings, self.work, self.cache = windows, settings, work, cache
        self.measured = measured
        self.zeros = Zeros(None, frozenset())
        self.mine = share(settings, accelerator.num_processes, accelerator.process_index)

    def run(self, start: int, log: Log | None, on_step: OnStep | None) -> None:
        """Steps ``start`` to the last one, saving the state now and then and at the end."""
        self.module.train()
        settings, elapsed, began = self.settings, log.elapsed if log else 0.0, time.perf_counter()
        as_it_came = {} if start else self.measured(0)
        if as_it_came and log is not None:
            log.add({"step": 0, "tokens": 0, "seconds": 0.0, **as_it_came})
        for step in range(start, settings.steps):
            before = time.perf_counter()
            values = self.take(step)
            now = time.perf_counter()
            took = max(now - before, 1e-9)
            per_step = settings.batch * settings.length
            loss, divergence, ce, hidden = values
            made = Step(
                step=step + 1, tokens=(step + 1) * per_step, loss=loss, divergence=divergence, ce=ce, hidden=hidden,
                lr=settings.learning_rate(step), gradient_norm=self.norm, tokens_per_second=per_step / took,
                seconds=elapsed + now - began, held_out=self.measured(step + 1),
            )  # fmt: skip
            if log is not None:
                log.add(made.line())
            if on_step is not None:
                on_step(made)
            if (step + 1) % settings.saves == 0 or step + 1 == settings.steps:
                state.save(self.accelerator, self.work, self.inner, self.optimizer, step + 1)

    @property
    def inner(self) -> nn.Module:
        """The module without the wrapper of data parallelism, whose names are those of the saved state."""
        found: nn.Module = self.accelerator.unwrap_model(self.module)
        return found

    def take(self, step: int) -> list[float]:
        """One optimizer step on this process's windows; returns the loss and its parts, averaged over processes."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate(step)
        self.optimizer.zero_grad()
        values = self._gradients(step * self.settings.batch)
        self.zeros.gradients()
        norm = self.accelerator.clip_grad_norm_(self.module.parameters(), self.settings.clip)
        self.norm = float(state.whole(norm))
        told: list[float] = self.accelerator.reduce(values, "mean").tolist()
        if not (math.isfinite(told[0]) and math.isfinite(self.norm)):
            raise self._diverged(step, told[0])
        self.optimizer.step()
        self.zeros.weights()
        return told

    def _gradients(self, first: int) -> Tensor:
        """Accumulate gradients over micro-batches of equal weight per window; gradients are exchanged once, at the
        end."""
        size, device = len(self.mine), self.accelerator.device
        values = torch.zeros(1 + len(PARTS), device=device)
        cuts = list(range(0, size, self.settings.micro_batch))
        for cut in cuts:
            at, end = self.mine.start + cut, self.mine.start + min(cut + self.settings.micro_batch, size)
            ids = self.windows.rows(first + at, first + end).to(device)
            cached = None if self.cache is None else self.cache.rows(first + at, first + end).to(device)
            quiet = contextlib.nullcontext() if cut == cuts[-1] else self.accelerator.no_sync(self.module)
            with quiet:
                loss, parts = self.module(ids, cached)
                self.accelerator.backward(loss * (len(ids) / size))
            values += torch.cat([loss.detach()[None], parts]) * (len(ids) / size)
        return values

    def _diverged(self, step: int, loss: float) -> TrainingError:
        saved = state.latest(self.work)
        where = f"the last good state is {saved}" if saved else "no state had been saved yet"
        return TrainingError(
            f"step {step + 1}: the loss is {loss} and the gradient's norm {self.norm}; training stopped, {where}",
            hint="start over with a lower --lr, a longer --warmup, or without --bf16 (--restart)",
        )
