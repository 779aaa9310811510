"""The training text as one table of windows, written once, so that a resumed run reads what the first one read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.checkpoint import TensorSpec, TensorStore, write_tensors
from secateur.checkpoint.files import disk_error
from secateur.checkpoint.hashing import FileHasher
from secateur.data import pack, read_texts
from secateur.train.settings import Settings

NAME = "windows"


def write_windows(
    folder: Path,
    sources: Sequence[str | Path],
    tokenizer: Any,
    settings: Settings,
    vocab_size: int,
    *,
    most: int | None = None,
) -> None:
    """Pack what ``settings`` need into ``folder`` unless it is there, or with ``most`` as many windows as there are up
    to that; whole or not at all."""
    if folder.exists():
        return
    windows = pack(
        tokenizer,
        read_texts(sources),
        length=settings.length,
        samples=most or settings.steps * settings.batch,
        seed=settings.seed,
        reach=1,
        vocab_size=vocab_size,
        fewer=settings.repeat or most is not None,
    )
    part = folder.with_name(folder.name + ".part")
    try:
        part.mkdir(exist_ok=True)
        write_tensors(part, [TensorSpec(NAME, "I32", tuple(windows.shape))], lambda _: windows.int())
        part.rename(folder)
    except OSError as cause:
        raise disk_error(cause, folder) from cause


class Windows:
    """Rows of the table, read from disk a batch at a time."""

    def __init__(self, folder: Path) -> None:
        self.store = TensorStore.open(folder)
        self.count, self.length = self.store.tensors[NAME].shape

    def rows(self, start: int, stop: int) -> Tensor:
        """Windows ``start`` to ``stop``, (n, length) int64; the table starts over behind its end."""
        found = []
        while start < stop:
            at = start % self.count
            n = min(stop - start, self.count - at)
            found.append(self.store.read_rows(NAME, at, at + n))
            start += n
        return torch.cat(found).long()

    def sha256(self) -> str:
        """Of the file on disk."""
        with FileHasher(self.store.files) as hasher:
            return "".join(hasher.digests().values())
