"""Text -> windows of token ids in which every token of the text is a target exactly once.

A window of length L is L inputs and their L next tokens. *Segments* (stride = L) lie end to end: a token sees what came
before it in its own segment. *Sliding* windows (stride < L) score ``stride`` new targets each, so that a target sees at
least L - stride tokens; only the first window of a document scores all of its targets. Tokenizers that put a BOS before
a text get one at the start of every window; it takes the place of one input and is what the first token of the
document is predicted from. Without a BOS that first token is only read, and its bytes are not counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from secateur.data import read_texts
from secateur.errors import UsageError

IGNORE = -100
"""Target of positions that are read but not scored."""


@dataclass(frozen=True, slots=True)
class Source:
    """Documents of one file, folder or data set, cut to the limit."""

    name: str
    documents: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the text."""
        return sum(len(d.encode()) for d in self.documents)

    @property
    def sha256(self) -> str:
        """Of the documents as measured, in UTF-8 with a zero byte between two of them."""
        return hashlib.sha256("\0".join(self.documents).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Window:
    """``inputs`` and ``targets`` (n,) int64; a target is the next token, or IGNORE. ``source``: index of its source."""

    inputs: torch.Tensor
    targets: torch.Tensor
    source: int


@dataclass(frozen=True, slots=True)
class Windows:
    """All windows of a text under one tokenizer; ``scored_bytes``: raw UTF-8 bytes the targets stand for, by source."""

    windows: tuple[Window, ...]
    scored_bytes: tuple[int, ...]


def read_sources(paths: Sequence[str | Path], limit: int | None = None) -> list[Source]:
    """The text of each path; of each at most ``limit`` bytes, cut between characters.

    A limit in bytes, not tokens, leaves models with different vocabularies the same text. Raises UsageError for text
    that cannot be read or is empty.
    """
    found = []
    for path in paths:
        documents = tuple(_limited(read_texts(path), limit))
        if not documents:
            raise UsageError(f"{path}: holds no text to measure on")
        found.append(Source(Path(path).name or str(path), documents))
    return found


def _limited(texts: Iterable[str], limit: int | None) -> Iterator[str]:
    left = limit
    for text in texts:
        if left is None:
            yield text
            continue
        # a character is at most four bytes: slicing first keeps the encoded copy small
        cut = text[:left].encode()[:left].decode(errors="ignore")
        left -= len(cut.encode())
        if cut:
            yield cut
        if cut != text or left <= 0:
            return


def make_windows(tokenizer: Any, sources: Sequence[Source], length: int, stride: int | None = None) -> Windows:
    """Windows over all documents, which never share one. Raises UsageError when no token can be scored."""
    stride = length if stride is None else stride
    if length < 2 or not 1 <= stride <= length:
        raise UsageError(f"window {length}, stride {stride}: expected a window of at least 2 and 1 <= stride <= window")
    bos = _bos(tokenizer)
    windows: list[Window] = []
    scored = []
    for i, source in enumerate(sources):
        nbytes = 0
        for text in source.documents:
            ids, first = _tokenize(tokenizer, text)
            spans = list(_cut(ids, bos, length, stride))
            windows.extend(Window(a, b, i) for a, b in spans)
            nbytes += len(text.encode()) - (0 if bos is not None else first) if spans else 0
        scored.append(nbytes)
    if not windows:
        raise UsageError("the text is too short to score a single token", hint="give more text")
    return Windows(tuple(windows), tuple(scored))


def _bos(tokenizer: Any) -> int | None:
    """The BOS id if the tokenizer puts one before a text of its own accord."""
    own = tokenizer("a", verbose=False)["input_ids"]
    bos: int | None = tokenizer.bos_token_id
    return bos if bos is not None and own[:1] == [bos] else None


def _tokenize(tokenizer: Any, text: str) -> tuple[list[int], int]:
    """(ids, bytes of raw text up to the end of the first token)."""
    fast = bool(tokenizer.is_fast)
    found = tokenizer(
        text, add_special_tokens=False, return_attention_mask=False, return_offsets_mapping=fast, verbose=False
    )
    ids = found["input_ids"]
    if not ids:
        return ids, 0
    head = text[: found["offset_mapping"][0][1]] if fast else tokenizer.decode(ids[:1])
    return ids, len(head.encode())


def _cut(ids: list[int], bos: int | None, length: int, stride: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(inputs, targets) of each window of one document."""
    at, step = (1 if bos is None else 0), length
    while at < len(ids):
        end = min(at + step, len(ids))
        if bos is None:
            start = max(0, at + step - 1 - length)
            inputs = ids[start : end - 1]
        else:
            start = max(0, at + step - length)
            inputs = [bos, *ids[start : end - 1]]
        targets = [IGNORE] * (len(inputs) - (end - at)) + ids[at:end]
        yield torch.tensor(inputs), torch.tensor(targets)
        at, step = end, stride


__all__ = ["IGNORE", "Source", "Window", "Windows", "make_windows", "read_sources"]
