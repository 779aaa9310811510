"""What the parent says of windows of text, asked once: its likeliest tokens, and how much the rest has together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from secateur.kernels import fast
from secateur.train.distribution import TopK, top_k

#: Tokens kept of a larger vocabulary; EvoPress (arXiv 2410.14649) finds 512 enough to rank by.
TOP = 512


class Remembered:
    """``whole``: the parent, made when it is first asked. ``windows`` (n, t). Memory: 8 bytes per token and entry."""

    def __init__(self, whole: Callable[[], Any], windows: Tensor, *, batch: int = 4, top: int = TOP) -> None:
        self.whole, self.windows, self.batch, self.top = whole, windows, batch, top
        self._said: dict[int, TopK] = {}

    @torch.no_grad()
    def ask(self, windows: Sequence[int]) -> None:
        """Ask about those of ``windows`` (their numbers) that were not asked about before."""
        for at in batches([i for i in windows if i not in self._said], self.batch):
            whole = self.whole()
            with fast(whole):
                logits = whole(self.windows[list(at)], use_cache=False).logits
            for i, window in zip(at, logits, strict=True):
                said = top_k(window, min(self.top, window.shape[-1]))
                self._said[i] = TopK(said.ids.int(), said.logp, said.tail)

    def answers(self, windows: Sequence[int]) -> TopK:
        """(n * t, k) in the order of ``windows``, all of which must have been asked about."""
        said = [self._said[i] for i in windows]
        ids, logp, tail = (torch.cat([getattr(s, name) for s in said]) for name in ("ids", "logp", "tail"))
        return TopK(ids.long(), logp, tail)


def batches(windows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """``windows`` in pieces of ``size``."""
    for start in range(0, len(windows), size):
        yield windows[start : start + size]
