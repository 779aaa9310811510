"""A teacher written to disk once: per token its k likeliest next tokens, their log-probabilities, and the rest's.

One file holds ``SHARD`` windows: ids (n, t, k) as 16-bit integers (32-bit for vocabularies above 65,536),
log-probabilities (n, t, k) in float16, the rest's log-probability (n, t) in float32. Every file appears whole, and
its sha256 is kept beside it and compared before use. arXiv 2407.14679 and most of its field keep k >= 512 for
vocabularies of 100,000 and more.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from secateur.checkpoint import require_space, write_json
from secateur.checkpoint.files import disk_error
from secateur.errors import CheckpointError, UsageError
from secateur.train.distribution import TopK

SHARD = 16
"""Windows in a file."""
_FILE = "cache.json"


@dataclass(frozen=True, slots=True)
class Layout:
    """What is cached: ``windows`` of ``length`` tokens, ``k`` of ``vocab`` tokens each at ``temperature``, by the
    teacher and for the text with these sha256."""

    windows: int
    length: int
    k: int
    vocab: int
    temperature: float
    teacher: str
    text: str

    @property
    def id_dtype(self) -> torch.dtype:
        return torch.uint16 if self.vocab <= 1 << 16 else torch.int32

    @property
    def nbytes(self) -> int:
        """Bytes of all files together, headers not counted."""
        return self.windows * self.length * (self.k * (self.id_dtype.itemsize + 2) + 4)

    @property
    def shards(self) -> int:
        return -(-self.windows // SHARD)


class TeacherCache:
    """The files of one layout in ``folder``."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.layout = folder, layout
        self._held: tuple[int, dict[str, Tensor]] | None = None
        found = self._told()
        if found is not None and found != asdict(layout):
            differs = ", ".join(
                f"{k} {found.get(k)} there, {v} here" for k, v in asdict(layout).items() if found.get(k) != v
            )
            raise UsageError(
                f"{folder}: caches another teacher or text: {differs}", hint="give another folder for the cache"
            )

    def missing(self) -> list[int]:
        """Shards that are not there yet."""
        return [i for i in range(self.layout.shards) if not self._sum(i).exists()]

    def prepare(self) -> None:
        """Make the folder and write down what it holds. CheckpointError when it will not fit."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise disk_error(cause, self.folder) from cause
        require_space(self.folder, self.layout.nbytes * len(self.missing()) // self.layout.shards)
        write_json(self.folder / _FILE, asdict(self.layout))

    def fill(self, shards: list[int], teacher: Callable[[int, int], TopK]) -> Iterator[int]:
        """Compute and write ``shards``; ``teacher(start, stop)`` gives windows start to stop with tokens flattened.
        Yields after each."""
        for shard in shards:
            start, stop = shard * SHARD, min((shard + 1) * SHARD, self.layout.windows)
            top = teacher(start, stop)
            shape = (stop - start, self.layout.length)
            tensors = {
                "ids": top.ids.to(self.layout.id_dtype).view(*shape, self.layout.k),
                "logp": top.logp.half().view(*shape, self.layout.k),
                "tail": top.tail.float().view(shape),
            }
            data = save({name: t.cpu().contiguous() for name, t in tensors.items()})
            _put(self._path(shard), data)
            _put(self._sum(shard), hashlib.sha256(data).hexdigest().encode())
            yield shard

    def rows(self, start: int, stop: int) -> TopK:
        """Windows ``start`` to ``stop`` (starting over behind the end), tokens flattened."""
        found = []
        while start < stop:
            at = start % self.layout.windows
            shard, inside = divmod(at, SHARD)
            n = min(stop - start, SHARD - inside, self.layout.windows - at)
            tensors = self._open(shard)
            found.append([tensors[name][inside : inside + n].flatten(0, 1) for name in ("ids", "logp", "tail")])
            start += n
        ids, logp, tail = (torch.cat(list(column)) for column in zip(*found, strict=True))
        return TopK(ids, logp, tail)

    def _open(self, shard: int) -> dict[str, Tensor]:
        if self._held is None or self._held[0] != shard:
            path = self._path(shard)
            try:
                data, want = path.read_bytes(), self._sum(shard).read_text()
                if hashlib.sha256(data).hexdigest() != want:
                    raise CheckpointError(
                        f"{path}: damaged, its sha256 is not the one written down",
                        hint=f"remove {path.name} and {self._sum(shard).name}; the next run computes them again",
                    )
                tensors = load(data)
            except (OSError, SafetensorError) as cause:
                raise CheckpointError(f"{path}: cannot be read: {cause}") from cause
            self._held = (shard, {**tensors, "ids": tensors["ids"].long()})
        return self._held[1]

    def _told(self) -> dict[str, Any] | None:
        path = self.folder / _FILE
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError) as cause:
            raise CheckpointError(f"{path}: cannot be read: {cause}", hint="remove the folder") from cause
        return found if isinstance(found, dict) else {}

    def _path(self, shard: int) -> Path:
        return self.folder / f"teacher-{shard:06d}.safetensors"

    def _sum(self, shard: int) -> Path:
        return self._path(shard).with_suffix(".sha256")


def _put(path: Path, data: bytes) -> None:
    part = path.with_suffix(path.suffix + f".{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as cause:
        part.unlink(missing_ok=True)
        raise disk_error(cause, path, needed=len(data)) from cause
