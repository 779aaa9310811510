"""Held-out loss while healing: the student on text it is not trained on, before the first step and now and then.

Nothing here draws random numbers or keeps a gradient, so a run with it takes the very steps of one without.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.errors import UsageError
from secateur.train.settings import Settings
from secateur.train.windows import Windows

WINDOWS = 64
"""At most so many windows are read: each measurement costs about as much as a few steps."""
LOSS, DIVERGENCE = "held_out", "held_out_divergence"
"""Keys in the log, both in nats per token: cross-entropy with the text, and divergence from a teacher at hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """``texts``: what to measure on. ``every``: steps between two measurements, a twentieth of the run when None."""

    texts: tuple[str | Path, ...]
    every: int | None = None

    def __post_init__(self) -> None:
        if not self.texts:
            raise UsageError("--eval-every is given without --eval-text: on what shall the student be measured?")
        if self.every is not None and self.every < 1:
            raise UsageError(f"eval_every is {self.every}, expected a positive count")

    def due(self, step: int, settings: Settings) -> bool:
        """Whether to measure after ``step`` steps: before the first, behind the last, and every so many."""
        every = self.every or max(1, settings.steps // 20)
        return step % every == 0 or step == settings.steps

    def to_json(self) -> dict[str, Any]:
        return {"texts": list(map(str, self.texts)), "every": self.every}


class Measurement:
    """Measures a prepared module, every process an equal share of the windows. ``divergence``: whether the module
    holds a teacher."""

    def __init__(
        self,
        accelerator: Any,
        module: nn.Module,
        windows: Windows,
        settings: Settings,
        held_out: HeldOut,
        *,
        divergence: bool,
    ) -> None:
        self.accelerator, self.module, self.windows, self.divergence = accelerator, module, windows, divergence
        self.settings, self.held_out, processes = settings, held_out, accelerator.num_processes
        each = windows.count // processes
        if not each:
            raise UsageError(f"{windows.count} windows of held-out text do not go round {processes} processes")
        first = each * accelerator.process_index
        self.mine = range(first, first + each)

    @torch.no_grad()
    def __call__(self, step: int) -> dict[str, float]:
        """Means over all windows when it is time to measure after ``step`` steps, else nothing. Every process calls
        this."""
        if not self.held_out.due(step, self.settings):
            return {}
        device, batch = self.accelerator.device, self.settings.micro_batch
        total = torch.zeros(2, device=device)
        for start in range(self.mine.start, self.mine.stop, batch):
            ids = self.windows.rows(start, min(start + batch, self.mine.stop)).to(device)
            _, (divergence, ce, _) = self.module(ids)
            total += torch.stack([ce, divergence]) * (len(ids) / len(self.mine))
        loss, divergence = self.accelerator.reduce(total, "mean").tolist()
        return {LOSS: loss, DIVERGENCE: divergence} if self.divergence else {LOSS: loss}
