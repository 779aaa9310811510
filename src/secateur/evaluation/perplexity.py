"""Loss, perplexity and bits per byte.

    loss           L   = -(1/N) sum_t ln q(x_t | x_<t)        nats per token, N scored tokens
    perplexity         = exp(L)
    bits per byte      = N L / (B ln 2)                       B: raw UTF-8 bytes the N tokens stand for

Loss and perplexity compare models of one vocabulary; bits per byte compares all models, because the number of bytes
does not depend on how a tokenizer cuts them. How text becomes windows: :mod:`secateur.evaluation.windows`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from secateur.evaluation.stream import Progress, Reader, Slice, stream
from secateur.evaluation.windows import IGNORE, Windows

if TYPE_CHECKING:
    from secateur.tokens.settings import TokenReduction


@dataclass(frozen=True, slots=True)
class Perplexity:
    """``nats``: summed negative log-likelihood of ``tokens`` scored tokens that stand for ``bytes`` bytes."""

    nats: float
    tokens: int
    bytes: int

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite where a double cannot hold it."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Bits spent on a byte of raw text."""
        return self.nats / math.log(2) / self.bytes if self.bytes else math.nan

    def to_json(self) -> dict[str, Any]:
        derived = {"loss": self.loss, "perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte}
        return {k: v if math.isfinite(v) else None for k, v in derived.items()} | {
            "tokens": self.tokens,
            "bytes": self.bytes,
        }


class LossSum:
    """Sums negative log-likelihoods by source, in float64."""

    def __init__(self, sources: int) -> None:
        self.nats = torch.zeros(sources, dtype=torch.float64)
        self.tokens = torch.zeros(sources, dtype=torch.int64)

    def update(self, part: Slice, reader: int = 0) -> None:
        """Add the targets of one slice under the logits of one reader."""
        logits, targets = part.logits[reader], part.targets
        nats = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORE, reduction="none")
        self.nats.index_add_(0, part.sources, nats.double().sum(1).cpu())
        self.tokens.index_add_(0, part.sources, (targets != IGNORE).sum(1).cpu())

    def result(self, scored_bytes: Sequence[int]) -> tuple[Perplexity, list[Perplexity]]:
        """(all sources together, each of them)."""
        each = [Perplexity(float(n), int(t), b) for n, t, b in zip(self.nats, self.tokens, scored_bytes, strict=True)]
        whole = Perplexity(sum(e.nats for e in each), sum(e.tokens for e in each), sum(e.bytes for e in each))
        return whole, each


def perplexity(
    model: Any,
    text: Windows,
    *,
    batch: int = 8,
    reduction: TokenReduction | None = None,
    progress: Progress | None = None,
) -> tuple[Perplexity, list[Perplexity]]:
    """Score every target of ``text`` under a loaded causal model: (all together, by source).

    ``reduction``: of what is read before a window's first target.
    """
    losses = LossSum(len(text.scored_bytes))
    for part in stream([Reader(model, reduction=reduction)], text.windows, batch=batch, progress=progress):
        losses.update(part)
    return losses.result(text.scored_bytes)


__all__ = ["LossSum", "Perplexity", "perplexity"]
