"""The next block's tensors, read on a thread while the current block computes.

At most one block is ahead: :meth:`Ahead.start` waits for nothing and reads nothing that was not asked for, and a block
nobody came for is dropped when the next is started. What the reader meets is raised where its block is taken. For a GPU
the bytes go through pinned memory on a stream of their own, so that the copy too overlaps with the computation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import torch


class Ahead:
    """``read(name)`` gives one tensor on the CPU; ``device`` is where it will be wanted."""

    def __init__(self, read: Callable[[str], torch.Tensor], device: torch.device) -> None:
        self._read = read
        self._lane = Lane(device) if device.type == "cuda" else None
        self._pending: tuple[int, Future[dict[str, torch.Tensor]]] | None = None

    def start(self, key: int, names: Sequence[str]) -> None:
        """Begin to read the tensors of block ``key``; what is already on its way is not begun twice."""
        if self._pending is not None:
            before, future = self._pending
            if before == key:
                return
            self._pending = None
            future.exception()  # one block at a time: a reader that is still at work is waited for, its block dropped
        self._pending = key, Future()
        threading.Thread(target=self._fill, args=(self._pending[1], list(names)), name=f"read block {key}").start()

    def take(self, key: int) -> Mapping[str, torch.Tensor]:
        """The tensors of block ``key``, empty when they were not started. Raises what reading them raised."""
        if self._pending is None or self._pending[0] != key:
            return {}
        future, self._pending = self._pending[1], None
        found = future.result()
        if self._lane is not None:
            self._lane.hand_over(found)
        return found

    def _fill(self, future: Future[dict[str, torch.Tensor]], names: list[str]) -> None:
        try:
            found = {name: self._read(name) for name in names}
            future.set_result(found if self._lane is None else self._lane.carry(found))
        except BaseException as error:
            future.set_exception(error)


class Lane:
    """From the CPU to one GPU beside its computation: pinned memory, and a stream only for copies."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def carry(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The same on the GPU; returns when all have arrived, which the reading thread can wait for."""
        with torch.cuda.stream(self.stream):
            found = {name: t.pin_memory().to(self.device, non_blocking=True) for name, t in tensors.items()}
        self.stream.synchronize()
        return found

    def hand_over(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Memory of the copy stream is not used again before the computing stream is through with it."""
        for tensor in tensors.values():
            tensor.record_stream(torch.cuda.current_stream(self.device))


__all__ = ["Ahead", "Lane"]
