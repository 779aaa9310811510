"""What a method decides for one sequence, and what that does to the two branches of a block.

Glossary: ``n`` tokens of one sequence in order, ``d`` channels, ``r`` tokens that go. A block computes
``output = residual + branch``: ``residual`` is the stream before it, ``branch`` what the block adds (UTRC's "hidden"
branch). Both are reduced with the same index sets and added again, so everything behind a location, caches included,
sees a shorter sequence.

    x_b' = (w_b x_b + sum over a merged into b of w_a x_a) / (w_b + sum w_a)        in each branch for itself

With one a and equal weights this is the paper's (x_a + x_b) / 2; for several a's the paper does not say, we take the
mean, which does not depend on their order. Survivors that nothing was merged into keep their output bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.tokens.settings import LEAST

CHUNK_ENTRIES = 1 << 22
"""Similarities held at a time (16 MiB in float32): matching takes no memory that grows with the square of a prompt."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence at a location, without padding; its last token must stay.

    ``importance`` (n,), ``branch`` (n, d) the hidden branch, both float32 or wider.
    """

    importance: Tensor
    branch: Tensor


@dataclass(frozen=True, slots=True)
class Choice:
    """``removed`` (r,) tokens that go; ``target`` (r,) the survivor each goes into where ``hidden`` or ``residual``
    (r,) say that the branch is merged, and not dropped; ``weight`` (n,) of the mean, None: all alike."""

    removed: Tensor
    target: Tensor
    hidden: Tensor
    residual: Tensor
    weight: Tensor | None = None


#: (row, tokens to remove, share of pairs pruned, whether merging may only go forward in time, seed) -> choice
Choose = Callable[[Row, int, "Options"], Choice]


@dataclass(frozen=True, slots=True)
class Options:
    """Settings that methods read; ``seed`` differs between locations."""

    prune: float = 0.5
    causal: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Method:
    """``matches``: compares half of the tokens with the other half, which costs operations; ``scores``: reads
    importance."""

    choose: Choose
    scores: bool
    matches: bool


def kept(tokens: int, ratio: float) -> int:
    """How many of ``tokens`` stay: ratio * tokens rounded up, at least the half that is matched against, and one."""
    exact = ratio * tokens
    whole = int(exact)
    return max(whole + (exact - whole > 1e-9), tokens - int(tokens * (1 - LEAST)), 1)


def dropped(removed: Tensor) -> Choice:
    """Nothing is merged."""
    no = torch.zeros_like(removed, dtype=torch.bool)
    return Choice(removed, removed, no, no)


def best_partner(branch: Tensor, a: Tensor, b: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """For every token of ``a`` the cosine similarity to its most similar token of ``b``, and that token: (a,), (a,).

    ``causal``: among the later ones. Ties go to the earliest.
    """
    unit = torch.nn.functional.normalize(branch, dim=-1)
    others = unit[b].T.contiguous()
    values, places = [], []
    for part in torch.split(a, max(1, CHUNK_ENTRIES // max(1, len(b)))):
        similarity = unit[part] @ others
        if causal:
            similarity.masked_fill_(b[None] < part[:, None], -torch.inf)
        value, place = similarity.max(1)
        values.append(value)
        places.append(b[place])
    return torch.cat(values), torch.cat(places)


def reduced(choice: Choice, residual: Tensor, output: Tensor, keep: Tensor) -> Tensor:
    """The stream behind a location: (n, d) before and behind the block -> (len(keep), d), in order."""
    out = output[keep]
    merged = choice.hidden | choice.residual
    if not bool(merged.any()):
        return out
    touched = torch.unique(choice.target[merged])
    used = torch.unique(torch.cat([touched, choice.removed[merged]]))  # all else stays as it is
    wide = torch.promote_types(output.dtype, torch.float32)
    before = residual[used].to(wide)
    branch = output[used].to(wide) - before
    total = _mean(choice, before, choice.residual, used, touched) + _mean(choice, branch, choice.hidden, used, touched)
    out[torch.searchsorted(keep, touched)] = total.to(out.dtype)
    return out


def _mean(choice: Choice, x: Tensor, merged: Tensor, used: Tensor, touched: Tensor) -> Tensor:
    """Weighted means of the tokens ``touched`` (t,) and what is merged into each of them: (t, d); x (used, d)."""
    weight = x.new_ones(len(used)) if choice.weight is None else choice.weight[used].to(x.dtype)
    a, into = torch.searchsorted(used, choice.removed[merged]), torch.searchsorted(touched, choice.target[merged])
    b = torch.searchsorted(used, touched)
    mass = weight[b].index_add(0, into, weight[a])
    total = (weight[b, None] * x[b]).index_add(0, into, weight[a, None] * x[a])
    return total / mass[:, None]


__all__ = ["Choice", "Choose", "Method", "Options", "Row", "best_partner", "dropped", "kept", "reduced"]
