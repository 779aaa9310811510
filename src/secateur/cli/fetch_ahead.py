"""Keep the disk busy while Python starts: importing the libraries takes seconds, and the weights are needed next.

No library is imported here; everything is a hint to the kernel, so nothing that goes wrong matters.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from threading import Thread

STEP = 32 << 20
"""Bytes asked for at once; two steps are on their way at any time."""
MOST = 6 << 30
"""Bytes fetched at most: what a fast disk reads during the imports."""
SHARE = 4
"""At most 1/SHARE of the memory that is free or could be freed: what is fetched must still be there when it is read."""


def fetch_ahead(source: str) -> Thread | None:
    """Start reading the weights of the local checkpoint folder ``source`` into the page cache, in their order.

    None where that makes no sense: no such folder, no such system call.
    """
    with suppress(OSError, ValueError):
        files = sorted(Path(source).glob("model*.safetensors"))
        room = min(MOST, _available() // SHARE)
        if files and room and hasattr(os, "posix_fadvise"):
            thread = Thread(target=_fetch, args=(files, room), name="secateur-fetcher", daemon=True)
            thread.start()
            return thread
    return None


def _available() -> int:
    """Bytes of memory that are free or hold only what can be read again; 0 where the system does not say."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _fetch(files: list[Path], room: int) -> None:
    with suppress(OSError):
        for path in files:
            room -= _fetch_file(path, room)


def _fetch_file(path: Path, room: int) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        end = min(os.fstat(fd).st_size, room)
        for start in range(0, end, STEP):
            os.posix_fadvise(fd, start, min(STEP, end - start), os.POSIX_FADV_WILLNEED)
            os.pread(fd, 1, max(0, start - 1))  # waits for the step before, so that requests do not pile up
        return end
    finally:
        os.close(fd)
