"""What a reduction costs, in nats per token: on what follows a reduced prompt, and on the survivors themselves.

    continuation   the first P tokens of a window are a prompt and are reduced; the C tokens after them, which every
                   method is judged on alike, are predicted from what is left
    survivors      the whole window is a prompt; each survivor predicts the token that really followed it. Methods
                   differ in which positions survive, so the full model's loss at the same positions stands beside it.

A token merged into an earlier one carries its own identity to a position that is asked for just that: the loss on
survivors flatters merging, unless ``causal``. The continuation cannot be flattered so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from secateur.evaluation.agreement import kl
from secateur.tokens.labels import following
from secateur.tokens.runtime import reduce_tokens
from secateur.tokens.settings import TokenReduction

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Score:
    """Means over ``tokens`` predicted tokens: ``loss`` reduced, ``full`` not reduced (nats), ``kl`` full || reduced."""

    loss: float
    full: float
    kl: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Judge:
    """Windows (rows, P + C) whose first ``prompt`` tokens are reduced, and what the full model says after them.

    ``full``: log-probabilities (rows', C, vocabulary) of every batch, float32 on the CPU: a candidate costs one pass.
    """

    network: Any
    batches: tuple[Tensor, ...]
    prompt: int
    full: tuple[Tensor, ...]

    def parted(self, of: int) -> tuple[Judge, Judge]:
        """Two judges of other text: one with one of ``of`` batches, the first ones, one with the rest. A lone batch is
        with both."""
        at = -(-len(self.batches) // of)
        parts = (slice(at), slice(at, None)) if at < len(self.batches) else (slice(None), slice(None))
        first, rest = (Judge(self.network, self.batches[p], self.prompt, self.full[p]) for p in parts)
        return first, rest

    def each(self, asked: TokenReduction | None) -> Tensor:
        """KL full || reduced of every window, float64 (rows,)."""
        found = []
        for ids, log_p in zip(self.batches, self.full, strict=True):
            found.append(kl(log_p, behind(self.network, asked, ids, self.prompt)).double().mean(-1))
        return torch.cat(found)

    def score(self, asked: TokenReduction | None) -> Score:
        """On the tokens behind the prompt."""
        sums, count = torch.zeros(3, dtype=torch.float64), 0
        for ids, log_p in zip(self.batches, self.full, strict=True):
            log_q = behind(self.network, asked, ids, self.prompt)
            targets = ids[:, self.prompt :].cpu()
            sums += _sums(log_p, log_q, targets)
            count += targets.numel()
        return _score(sums, count)


def judge(
    network: Any, windows: Tensor, prompt: int, *, batch: int = 4, progress: Progress = lambda done, total: None
) -> Judge:
    """Run the full model over ``windows`` (rows, tokens) once."""
    batches = tuple(b.to(network.device) for b in torch.split(windows, batch))
    full = []
    for i, ids in enumerate(batches):
        full.append(behind(network, None, ids, prompt))
        progress(i + 1, len(batches))
    return Judge(network, batches, prompt, tuple(full))


@torch.no_grad()
def behind(network: Any, asked: TokenReduction | None, ids: Tensor, prompt: int) -> Tensor:
    """Log-probabilities (b, C, vocabulary) of the tokens behind the prompt, float32 on the CPU."""
    after = ids.shape[1] - prompt
    with nullcontext() if asked is None else reduce_tokens(network, asked, prompt=prompt):
        # the last token of the prompt predicts the first one behind it; it is never removed
        logits: Tensor = network(ids, use_cache=False, logits_to_keep=after + 1).logits
    return logits[:, -after - 1 : -1].float().log_softmax(-1).cpu()


@torch.no_grad()
def survivors(
    network: Any, asked: TokenReduction, batches: Sequence[Tensor], known: Sequence[Tensor] | None = None
) -> Score:
    """On the surviving positions of whole windows (b, tokens); ``known``: :func:`everywhere` of every batch."""
    sums, count = torch.zeros(3, dtype=torch.float64), 0
    for i, ids in enumerate(batches):
        full = everywhere(network, ids) if known is None else known[i].to(ids.device)
        with reduce_tokens(network, asked) as reducing:
            reduced = everywhere(network, ids)
        at = reducing.positions
        targets = following(ids, at)
        if at is not None:
            full = full.gather(1, at[..., None].expand(-1, -1, full.shape[-1]))
        # the last token survives and has no next one
        sums += _sums(full[:, :-1].cpu(), reduced[:, :-1].cpu(), targets[:, :-1].cpu())
        count += targets[:, :-1].numel()
    return _score(sums, count)


@torch.no_grad()
def everywhere(network: Any, ids: Tensor) -> Tensor:
    """Log-probabilities (b, n, vocabulary) behind every token that is left."""
    logits: Tensor = network(ids, use_cache=False).logits
    return logits.float().log_softmax(-1)


def _sums(log_p: Tensor, log_q: Tensor, targets: Tensor) -> Tensor:
    """(loss of q, loss of p, KL), summed: log-probabilities (b, n, v), targets (b, n)."""
    losses = [functional.nll_loss(x.flatten(0, 1).double(), targets.flatten(), reduction="sum") for x in (log_q, log_p)]
    return torch.stack([*losses, kl(log_p, log_q).double().sum()])


def _score(sums: Tensor, count: int) -> Score:
    loss, full, divergence = (float(x) / count for x in sums)
    return Score(loss, full, divergence, count)


__all__ = ["Judge", "Score", "behind", "everywhere", "judge", "survivors"]
