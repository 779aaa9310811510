"""sha256 of the parent's files, computed while the parent streams past."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from secateur.checkpoint.files import open_regular, read_ahead, read_some, status
from secateur.checkpoint.hf_cache import known_sha256

LEAD_BYTES = 512 << 20
"""How far the hash may run ahead of the reader. Whichever comes second finds the bytes in the page cache; much
further apart, a machine short of memory would read the disk twice."""
CHUNK = 4 << 20
AHEAD = 128 << 20
"""How far the disk is kept busy ahead of the hash: without it the disk rests while a chunk is hashed."""


class FileHasher:
    """Hashes whole files, header and data, on a thread of its own (hashlib and reads release the GIL).

    The thread reads through the page cache instead of being fed tensors: a tensor belongs to the one who read it and
    may be modified. Pass ``follow`` to a store as its watcher so that both stay near each other. Files of a Hugging
    Face cache whose sha256 the hub has named are not read.
    """

    def __init__(self, files: Mapping[str, Path], *, lead_bytes: int = LEAD_BYTES) -> None:
        self._files = dict(files)
        self._lead = lead_bytes
        self._digests: dict[str, str] = {}
        self._starts: dict[str, int] = {}
        self._seen: float = 0
        self._stopped = False
        self._error: BaseException | None = None
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="secateur-hasher", daemon=True)

    def __enter__(self) -> Self:
        total = 0
        for name, path in self._files.items():
            known = known_sha256(path)
            if known is not None:
                self._digests[name] = known
            else:
                self._starts[name] = total
                total += status(path).st_size
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._moved:
            self._stopped = True
            self._moved.notify_all()
        self._thread.join()

    def follow(self, file: str, offset: int) -> None:
        """Note that the reader has come to ``offset`` of ``file``."""
        with self._moved:
            self._seen = max(self._seen, self._starts.get(file, 0) + offset)
            self._moved.notify_all()

    def digests(self) -> dict[str, str]:
        """File name -> sha256 in hex, in the order given; waits until every file has been hashed."""
        with self._moved:
            self._seen = float("inf")
            self._moved.notify_all()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return {name: self._digests[name] for name in self._files}

    def _run(self) -> None:
        try:
            for name, start in self._starts.items():
                self._digests[name] = self._hash(self._files[name], start)
        except BaseException as cause:
            self._error = cause

    def _hash(self, path: Path, start: int) -> str:
        digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
        fd = open_regular(path)
        try:
            offset = asked = 0
            while self._may_read(start + offset) and (count := read_some(fd, buffer, offset, path)):
                digest.update(buffer[:count])
                offset += count
                if offset + AHEAD - asked >= AHEAD // 4:
                    read_ahead(fd, max(asked, offset), offset + AHEAD - max(asked, offset))
                    asked = offset + AHEAD
        finally:
            os.close(fd)
        return digest.hexdigest()

    def _may_read(self, position: int) -> bool:
        with self._moved:
            self._moved.wait_for(lambda: self._stopped or position < self._seen + self._lead)
            return not self._stopped
