"""Hidden states on disk: text longer than memory holds. One file per batch, read when its turn comes.

A layer needs each batch's states once to read and once to write, so the disk sees 2 x layers x tokens x hidden numbers
and memory one batch.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, MutableSequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from secateur.checkpoint.files import disk_error

_BYTES = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Spilled(MutableSequence[torch.Tensor]):
    """A list of tensors whose bytes lie in ``folder``; each comes back on the device it had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shapes: list[tuple[tuple[int, ...], torch.dtype]] = []
        self._devices: list[torch.device] = []

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        shape, dtype = self.shapes[index]
        bits = torch.from_numpy(np.fromfile(self._path(range(len(self))[index]), dtype=np.uint8))
        return bits.view(dtype).reshape(shape).to(self._devices[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            for i, tensor in zip(range(len(self))[index], value, strict=True):
                self[i] = tensor
            return
        self.shapes[index], self._devices[index] = (tuple(value.shape), value.dtype), value.device
        path, bits = self._path(range(len(self))[index]), value.detach().cpu().contiguous()
        try:
            bits.view(_BYTES[value.element_size()]).numpy().tofile(path)
        except OSError as cause:
            raise disk_error(cause, path, needed=bits.nbytes) from cause

    def __delitem__(self, index: Any) -> None:
        raise TypeError("batches are not removed from a walk")

    def insert(self, index: int, value: torch.Tensor) -> None:
        """At the end only."""
        if index != len(self):
            raise TypeError("batches are added at the end")
        self.shapes.append((tuple(value.shape), value.dtype))
        self._devices.append(value.device)
        self[index] = value

    def _path(self, index: int) -> Path:
        return self.folder / f"batch-{index:06d}"


@contextlib.contextmanager
def states(spill: Path | None) -> Iterator[MutableSequence[torch.Tensor]]:
    """An empty list for hidden states: in memory, or in a temporary folder under ``spill``, removed at the end."""
    if spill is None:
        yield []
        return
    spill.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="states-", dir=spill) as folder:
        yield Spilled(Path(folder))


__all__ = ["Spilled", "states"]
