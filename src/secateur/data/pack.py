"""Documents -> one stream of tokens -> windows of equal length, drawn under a seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.data.tokenizer import check_vocabulary
from secateur.errors import UsageError

Border = Literal["auto", "none", "document", "window"]
Ids = NDArray[np.int32]
PIECE = 1 << 18
"""Characters tokenized at once. Longer documents are cut behind a newline, which can cost one token a piece."""


def pack(
    tokenizer: Any,
    texts: Iterable[str],
    *,
    length: int,
    samples: int | None = None,
    tokens: int | None = None,
    seed: int = 0,
    reach: int = 8,
    bos: Border = "auto",
    eos: Border = "auto",
    vocab_size: int | None = None,
    fewer: bool = False,
) -> torch.Tensor:
    """Windows of token ids, (samples, length) int64, without overlap or padding.

    ``samples`` windows (or as many as hold ``tokens`` tokens; all of the text when neither is given) are drawn without
    replacement under ``seed`` from the first ``reach`` times as many of the text; reading stops there. The same
    arguments give the same windows in the same order.

    ``bos``: before every document, or also at the start of every window; auto is "window" for tokenizers that put one
    before a text themselves, else "none". ``eos``: behind every document, or not; auto is "document" unless the
    tokenizer marks borders by BOS alone. ``vocab_size``: rows of the model's embedding, to refuse a foreign tokenizer.
    ``fewer``: a text too short gives the windows it has.

    Raises UsageError when the text is too short, naming how many tokens it has and how many are needed.
    """
    if samples is not None and tokens is not None:
        raise UsageError("both samples and tokens are given; give one of them")
    if vocab_size is not None:
        check_vocabulary(tokenizer, vocab_size)
    marks = _marks(tokenizer, bos, eos)
    if length < 2 or any(n is not None and n < 1 for n in (samples, tokens, reach)):
        raise UsageError(
            f"length {length}, samples {samples}, tokens {tokens}, reach {reach}: expected length >= 2 and others >= 1"
        )
    wanted = samples if tokens is None else -(-tokens // length)
    limit = None if wanted is None else wanted * reach
    windows, seen = _windows(_stream(tokenizer, texts, marks), length, limit, marks)
    if not len(windows) or (wanted is not None and len(windows) < wanted and not fewer):
        need = (wanted or 1) * length
        raise UsageError(
            f"the text has {seen:,} tokens, {need:,} are needed ({wanted or 1} windows of {length})",
            hint="give more text, or ask for fewer tokens or shorter windows",
        )
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))
    return torch.from_numpy(windows)[order[:wanted]].long()


def count_tokens(tokenizer: Any, texts: Iterable[str]) -> int:
    """Tokens of all texts together, no special ones added."""
    return sum(len(ids) for ids in _stream(tokenizer, texts, Marks(None, None, False)))


@dataclass(frozen=True, slots=True)
class Marks:
    """Ids put before and behind documents (None: nothing), and whether every window opens with ``before``."""

    before: int | None
    behind: int | None
    windows: bool


def _marks(tokenizer: Any, bos: Border, eos: Border) -> Marks:
    own = tokenizer("a", verbose=False)["input_ids"]
    adds_bos = tokenizer.bos_token_id is not None and own[:1] == [tokenizer.bos_token_id]
    adds_eos = tokenizer.eos_token_id is not None and own[-1:] == [tokenizer.eos_token_id]
    if bos == "auto":
        bos = "window" if adds_bos else "none"
    if eos == "auto":
        eos = "document" if adds_eos or (not adds_bos and tokenizer.eos_token_id is not None) else "none"
    if bos != "none" and tokenizer.bos_token_id is None:
        raise UsageError(f"bos={bos!r}: the tokenizer has no BOS token")
    if eos == "window" or (eos == "document" and tokenizer.eos_token_id is None):
        raise UsageError(f"eos={eos!r}: expected none, or document with a tokenizer that has an EOS token")
    before = None if bos == "none" else tokenizer.bos_token_id
    return Marks(before, tokenizer.eos_token_id if eos == "document" else None, bos == "window")


def _stream(tokenizer: Any, texts: Iterable[str], marks: Marks) -> Iterator[Ids]:
    """Token ids of one piece of a document after another, borders included."""
    for text in texts:
        first = True
        for piece in _pieces(text):
            ids = tokenizer(piece, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
            # a chat template has written its own BOS already
            if first and marks.before is not None and ids[:1] != [marks.before]:
                ids = [marks.before, *ids]
            first = False
            yield np.asarray(ids, dtype=np.int32)
        if marks.behind is not None:
            yield np.asarray([marks.behind], dtype=np.int32)


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > PIECE:
        cut = text.rfind("\n", start, start + PIECE) + 1
        cut = cut if cut > start else start + PIECE
        yield text[start:cut]
        start = cut
    yield text[start:]


def _windows(stream: Iterator[Ids], length: int, limit: int | None, marks: Marks) -> tuple[Ids, int]:
    """At most ``limit`` windows, and the number of tokens read for them; a rest shorter than a window is dropped."""
    done: list[Ids] = []
    count = seen = 0
    rest: Ids = np.empty(0, dtype=np.int32)
    for ids in stream:
        seen += len(ids)
        rest = np.concatenate([rest, ids])
        cut, rest = _cut(rest, length, marks.before if marks.windows else None)
        done.append(cut)
        count += len(cut)
        if limit is not None and count >= limit:
            break
    whole = np.concatenate(done) if done else np.empty((0, length), dtype=np.int32)
    return whole[:limit], seen


def _cut(ids: Ids, length: int, opening: int | None) -> tuple[Ids, Ids]:
    """(whole windows, rest). Each window opens with ``opening`` when it is given."""
    if opening is None:
        n = len(ids) // length
        return ids[: n * length].reshape(n, length), ids[n * length :]
    rows, at = [], 0
    while True:
        body = length if at < len(ids) and ids[at] == opening else length - 1
        if at + body > len(ids):
            break
        rows.append(
            np.concatenate([ids[:0] if body == length else np.asarray([opening], np.int32), ids[at : at + body]])
        )
        at += body
    return np.stack(rows) if rows else np.empty((0, length), np.int32), ids[at:]
