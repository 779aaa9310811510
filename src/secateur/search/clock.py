"""Marks in time, cheap enough to set around every block."""

from __future__ import annotations

import time
from typing import Any, Protocol

import torch

from secateur.errors import UsageError


class Clock(Protocol):
    """``seconds`` may wait for a device; ``mark`` never does."""

    def mark(self) -> Any: ...

    def seconds(self, start: Any, end: Any) -> float: ...


class HostClock:
    """For a CPU, where calls return when they are done."""

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        return end - start


class CudaClock:
    """Events in the stream: time on the device, gaps while it waits for the host included."""

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3


def clock_for(device: str) -> Clock:
    """The clock of a device. Raises UsageError for devices without one."""
    kind = torch.device(device).type
    if kind not in ("cpu", "cuda"):
        raise UsageError(f"latency is measured on cpu and cuda, not on {kind}")
    return CudaClock() if kind == "cuda" else HostClock()
