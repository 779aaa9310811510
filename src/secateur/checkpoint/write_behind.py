"""One file, written in order by a thread of its own, so that producing the next bytes overlaps with writing these."""

from __future__ import annotations

import os
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

from secateur.checkpoint.files import disk_error

PENDING_BYTES = 64 << 20
"""Bytes that may wait for the writer before the producer waits too."""
CHUNK = 16 << 20
"""Bytes of one write call."""


class WriteBehind:
    """``put`` queues bytes, leaving the block waits for all of them. The first failed write is raised by either."""

    def __init__(self, path: Path, *, pending_bytes: int = PENDING_BYTES) -> None:
        self.path = path
        self._limit = pending_bytes
        self._queue: deque[memoryview] = deque()
        self._waiting = 0
        self._offset = 0
        self._closing = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="secateur-writer", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as cause:
            raise disk_error(cause, self.path) from cause
        self._thread.start()
        return self

    def put(self, data: memoryview) -> None:
        """Queue ``data``; waits while more than the allowed bytes are pending. It must not change afterwards."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or self._waiting + len(data) <= self._limit or not self._waiting)
            self._raise()
            self._queue.append(data)
            self._waiting += len(data)
            self._changed.notify_all()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            if kind is not None:
                self._queue.clear()
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        os.close(self._fd)
        if kind is None:
            self._raise()

    def _raise(self) -> None:
        if isinstance(self._error, OSError):
            raise disk_error(self._error, self.path, needed=self._waiting) from self._error
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                data = self._queue.popleft()
            try:
                self._write(data)
            except BaseException as cause:  # whatever ended the thread, a waiting producer must hear of it
                with self._changed:
                    self._error = cause
                    self._queue.clear()
                    self._changed.notify_all()
                return
            with self._changed:
                self._waiting -= len(data)
                self._changed.notify_all()

    def _write(self, data: memoryview) -> None:
        done = 0
        while done < len(data):
            count = os.write(self._fd, data[done : done + CHUNK])
            self._start_writeback(count)
            done += count

    def _start_writeback(self, count: int) -> None:
        """Have the kernel send the bytes just written to the disk now.

        Dirty pages then never pile up, and the final fsync finds little left to do: a streamed copy in a warm cache
        took 2.2 s instead of 3.2 s. POSIX_FADV_DONTNEED starts writing dirty pages and drops only clean ones.
        """
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, self._offset, count, os.POSIX_FADV_DONTNEED)
        self._offset += count
