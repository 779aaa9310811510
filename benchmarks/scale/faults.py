"""`secateur distill` with something going wrong in it. A worker of the endurance benchmark, and of its tests.

    python -m benchmarks.scale.faults FAULT STEP distill ...

FAULT: ``nan`` (the batch of a step gives NaN), ``disk`` (files cannot grow when the state after STEP is saved),
``clock`` (the wall clock jumps back by a day and forward by a year, and the process seems to have slept for an hour).
``none`` runs as it is. A killed worker and a damaged cache come from outside.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from secateur.cli import run
from secateur.train import loop, state


def nan(at: int) -> None:
    """NaN in what step ``at`` computes, as a broken memory cell or an overflow would leave it."""
    plain = loop.Loop._gradients

    def broken(self: Any, first: int) -> torch.Tensor:
        values = plain(self, first)
        if first == at * self.settings.batch:
            values = values * float("nan")
        return values

    loop.Loop._gradients = broken  # type: ignore[method-assign]


def disk(at: int) -> None:
    """No file may grow any more from the state after step ``at`` on: the path of a full disk, without one."""
    plain = state.save

    def full(accelerator: Any, work: Any, module: Any, optimizer: Any, step: int) -> None:
        if step >= at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        plain(accelerator, work, module, optimizer, step)

    state.save = full


def clock(at: int) -> None:
    """Time goes wrong from step ``at`` on, another way at each step."""
    plain, wall, steady = loop.Loop.take, time.time, time.perf_counter
    jumps = (-86_400.0, 365 * 86_400.0, 0.0)

    def jumped(self: Any, step: int) -> list[float]:
        if step >= at:
            jump = jumps[step % len(jumps)]
            time.time = lambda: wall() + jump
            time.perf_counter = lambda: steady() + 3600.0
        return plain(self, step)

    loop.Loop.take = jumped  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[int], None]] = {"nan": nan, "disk": disk, "clock": clock, "none": lambda at: None}

if __name__ == "__main__":
    FAULTS[sys.argv[1]](int(sys.argv[2]))
    sys.exit(run(sys.argv[3:]))
