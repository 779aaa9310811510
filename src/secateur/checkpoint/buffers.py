"""Memory for tensors that come and go, recycled instead of returned to the system.

A fresh 50 MB buffer costs more than filling it: the kernel hands out its pages one by one and clears each. Reading
3 GB took 1.6 s of processor time into fresh buffers and 0.3 s into recycled ones.
"""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np
import numpy.typing as npt
import torch

KEEP_BYTES = 256 << 20
"""Bytes of unused buffers kept for the next tensor, at the most,"""
KEEP_TENSORS = 4
"""and as many of the largest tensor yet: what a smaller model cannot use is not kept."""
SMALL = 1 << 20
"""Below this the allocator recycles memory by itself."""

_Bytes = npt.NDArray[np.uint8]


class BufferPool:
    """``empty`` is torch.empty over recycled memory. A buffer returns when the last tensor over it is gone.

    Safe to use from several threads: buffers come back wherever the last reference is dropped, so only atomic deque
    operations touch them.
    """

    def __init__(self, keep_bytes: int = KEEP_BYTES) -> None:
        self._keep, self._largest = keep_bytes, 0
        self._free: deque[_Bytes] = deque()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """An uninitialised CPU tensor. RuntimeError or MemoryError where torch or numpy cannot allocate it."""
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < SMALL:
            return torch.empty(shape, dtype=dtype)
        self._largest = max(self._largest, nbytes)
        base = self._take(nbytes)
        # A view of its own for each use: torch holds it as long as the storage lives, and its end gives the base back.
        view = base[:nbytes]
        weakref.finalize(view, self._give_back, base).atexit = False
        return torch.from_numpy(view).view(dtype).reshape(shape)

    def _take(self, nbytes: int) -> _Bytes:
        for _ in range(len(self._free)):
            try:
                base = self._free.popleft()
            except IndexError:
                break
            if nbytes <= base.nbytes <= 2 * nbytes:
                return base
            self._free.append(base)
        return np.empty(nbytes, dtype=np.uint8)

    def _give_back(self, base: _Bytes) -> None:
        self._free.append(base)
        keep = min(self._keep, KEEP_TENSORS * self._largest)
        while sum(free.nbytes for free in tuple(self._free)) > keep:
            try:
                self._free.popleft()
            except IndexError:
                break
