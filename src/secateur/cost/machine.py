"""How fast this machine multiplies, reads, writes and hashes: a second or two of each, on one thread of Python."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from secateur.checkpoint.files import disk_error

SIDE, FILE, HASH = 1024, 256 << 20, 64 << 20
"""Rows of the matrices, bytes of the file, bytes hashed."""


@dataclass(frozen=True, slots=True)
class Machine:
    """``flops``: float32 operations per second of a square product; ``read``, ``write``, ``hash``: bytes per second."""

    flops: float
    read: float
    write: float
    hash: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def probe(
    folder: Path | None = None, *, device: str = "cpu", clock: Callable[[], float] = time.perf_counter
) -> Machine:
    """Measure this machine; ``folder``: where a file of 256 MiB is written and read back, the system's temporary one
    when not given. Pages are dropped in between where the system lets us, so that the disk is measured. ``clock``:
    seconds for products and hashes; ``time.process_time`` leaves out what other processes take.

    Raises CheckpointError when the disk refuses.
    """
    write, read = _disk(folder)
    data = os.urandom(1 << 20) * (HASH >> 20)
    hashing = _seconds(lambda: hashlib.sha256(data), clock)
    return Machine(_matrices(torch.device(device), clock), read, write, HASH / hashing)


def _matrices(device: torch.device, clock: Callable[[], float]) -> float:
    a, b = (torch.rand(SIDE, SIDE, device=device) for _ in range(2))

    def product() -> None:
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return 2 * SIDE**3 / _seconds(product, clock, times=5)


def _seconds(call: Callable[[], object], clock: Callable[[], float], times: int = 3) -> float:
    """The fastest of some calls: other work on the machine only ever adds."""
    call()
    best = float("inf")
    for _ in range(times):
        began = clock()
        call()
        best = min(best, clock() - began)
    return max(best, 1e-9)


def _disk(folder: Path | None) -> tuple[float, float]:
    """Bytes per second (written and forced to disk, read back)."""
    piece = memoryview(os.urandom(1 << 20) * 16)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, buffering=0) as file:
            began = time.perf_counter()
            for _ in range(FILE // len(piece)):
                file.write(piece)
            os.fsync(file.fileno())
            written = time.perf_counter() - began
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            buffer, began = bytearray(len(piece)), time.perf_counter()
            while file.readinto(buffer):
                pass
            return FILE / written, FILE / (time.perf_counter() - began)
    except OSError as cause:
        raise disk_error(cause, folder or Path(tempfile.gettempdir())) from cause


__all__ = ["Machine", "probe"]
