"""How far a child's next-token distribution q is from its parent's p, over the tokens of real text.

    KL(p||q) = sum_v p_v (ln p_v - ln q_v)                          nats, 0 when they are equal, unbounded
    JS(p,q)  = KL(p||m)/2 + KL(q||m)/2,  m = (p + q)/2              nats, at most ln 2
    top-1    = [argmax p = argmax q]

All three are means over scored tokens. Where the child's vocabulary was trimmed, both are compared on the tokens that
were kept: the text is cut by the child's tokenizer, the parent reads the same tokens under its own ids, and p is
renormalised to them. ``outside`` is the mass p had put on tokens the child no longer knows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from secateur.evaluation.perplexity import LossSum, Perplexity
from secateur.evaluation.stream import Progress, Reader, Slice, stream
from secateur.evaluation.windows import IGNORE, Windows

if TYPE_CHECKING:
    from secateur.tokens.settings import TokenReduction


@dataclass(frozen=True, slots=True)
class Agreement:
    """Means over ``tokens`` tokens; KL and JS in nats, top1 and outside as shares."""

    kl: float
    js: float
    top1: float
    outside: float
    tokens: int

    def to_json(self) -> dict[str, Any]:
        found = {"kl": self.kl, "js": self.js, "top1": self.top1, "outside_mass": self.outside}
        return {k: v if math.isfinite(v) else None for k, v in found.items()} | {"tokens": self.tokens}


class AgreementSum:
    """Sums over tokens, in float64, from slices whose first reader is the parent and whose second is the child."""

    def __init__(self) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64)
        self.tokens = 0

    def update(self, part: Slice, *, trimmed: bool = False) -> None:
        """Add the scored tokens of one slice; ``trimmed``: the parent's logits are log p over the kept tokens only."""
        scored = part.targets != IGNORE
        parent, child = (logits[scored] for logits in part.logits)
        log_p, log_q = parent.log_softmax(-1), child.log_softmax(-1)
        same = log_p.argmax(-1) == log_q.argmax(-1)
        outside = 1 - parent.logsumexp(-1).exp() if trimmed else torch.zeros_like(parent[:, 0])
        found = torch.stack([x.double().sum() for x in (kl(log_p, log_q), js(log_p, log_q), same, outside)])
        self.sums += found.cpu()
        self.tokens += int(scored.sum())

    def result(self) -> Agreement:
        """The means; rounding cannot push a divergence below zero, JS above ln 2, or a share out of [0, 1]."""
        found = (self.sums / max(1, self.tokens)).tolist()
        top = (math.inf, math.log(2), 1.0, 1.0)
        bounded = [x if math.isnan(x) else min(max(0.0, x), most) for x, most in zip(found, top, strict=True)]
        return Agreement(bounded[0], bounded[1], bounded[2], bounded[3], self.tokens)


def kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """KL(p||q) of log-probabilities (..., v) -> (...). Tokens with p = 0 add nothing."""
    return torch.where(log_p == -math.inf, 0.0, log_p.exp() * (log_p - log_q)).sum(-1)


def js(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """JS(p,q) of log-probabilities (..., v) -> (...)."""
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return (kl(log_p, log_m) + kl(log_q, log_m)) / 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one pass over the text says: how the two agree, and the loss of each (all together, by source)."""

    agreement: Agreement
    parent: tuple[Perplexity, list[Perplexity]]
    child: tuple[Perplexity, list[Perplexity]]


def compare(
    parent: Any,
    child: Any,
    text: Windows,
    *,
    rows: torch.Tensor | None = None,
    batch: int = 8,
    reduction: TokenReduction | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """One pass of both loaded models over ``text``, windows of the child's ids.

    ``rows`` (child's vocabulary,) int64: the parent's id of each id of the child, where they differ. The parent's loss
    is then the one over the kept tokens. ``reduction``: of what the child reads before a window's first target.
    """
    sums = AgreementSum()
    losses = LossSum(len(text.scored_bytes)), LossSum(len(text.scored_bytes))
    readers = [Reader(parent, rows), Reader(child, reduction=reduction)]
    for part in stream(readers, text.windows, batch=batch, progress=progress):
        sums.update(part, trimmed=rows is not None)
        for i, loss in enumerate(losses):
            loss.update(part, i)
    found = [loss.result(text.scored_bytes) for loss in losses]
    return Comparison(sums.result(), found[0], found[1])


__all__ = ["Agreement", "AgreementSum", "Comparison", "compare", "js", "kl"]
