"""Which entries may go: a share of them anywhere, or so many in every group of inputs.

``50%``: half of the entries, compared within each row (``scope`` row), the whole matrix (layer) or, for a sweep, within
each block of columns (block). ``2:4``: 2 of every 4 neighbouring inputs of a row stay, what sparse tensor cores read.
A mask is True where an entry goes. Ties go to the lower index.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from secateur.errors import UsageError
from secateur.layerwise.base import Unfit

Scope = Literal["row", "layer", "block"]
_RANKED = 16
"""Entries of a group up to which comparing all pairs is faster than selecting."""


@dataclass(frozen=True)
class Pattern:
    """``keep`` of every ``group`` inputs stay when group is not 0, else a ``share`` of all entries goes."""

    share: float = 0.5
    keep: int = 0
    group: int = 0

    def __str__(self) -> str:
        return f"{self.keep}:{self.group}" if self.group else f"{100 * self.share:g}%"

    @property
    def removed(self) -> float:
        """Share of entries that go."""
        return 1 - self.keep / self.group if self.group else self.share

    def count(self, n: int) -> int:
        """How many of ``n`` entries go."""
        return round(self.share * n)

    def check(self, width: int) -> None:
        """Raises Unfit when ``width`` inputs do not divide into groups."""
        if self.group and width % self.group:
            raise Unfit(f"its {width} inputs do not divide into groups of {self.group}")

    def smallest(self, scores: torch.Tensor, scope: Scope = "row") -> torch.Tensor:
        """Mask (m, d) of the entries with the smallest ``scores`` (m, d)."""
        if self.group:
            self.check(scores.shape[1])
            if self.group <= _RANKED:
                return _least_ranked(scores, self.group, self.group - self.keep)
            grouped = scores.reshape(scores.shape[0], -1, self.group)
            return _least(grouped, self.group - self.keep).reshape(scores.shape)
        if scope == "row":
            return _least(scores, self.count(scores.shape[1]))
        return _least(scores.reshape(1, -1), self.count(scores.numel())).reshape(scores.shape)


def positions(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(index, valid), (.., most): where ``mask`` (.., n) holds, in order; where it holds less often, others fill up
    that are not ``valid``."""
    counts = mask.sum(-1, keepdim=True)
    most = int(counts.max())
    index = (~mask).to(torch.uint8).argsort(stable=True, dim=-1)[..., :most]
    return index, torch.arange(most, device=mask.device) < counts


def _least(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Mask of the ``count`` smallest along the last dimension, the first of equals: a selection, not a sort."""
    if not count:
        return torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    threshold = scores.kthvalue(count, dim=-1, keepdim=True).values
    reached = scores <= threshold
    if bool((reached.sum(-1) == count).all()):
        return reached
    below, equal = scores < threshold, scores == threshold
    return below | (equal & (equal.cumsum(-1) <= count - below.sum(-1, keepdim=True)))


def _least_ranked(scores: torch.Tensor, group: int, count: int) -> torch.Tensor:
    """The same in groups of neighbours: how many others are smaller, from all pairs. Cheap in small groups."""
    one = [scores[:, j::group].contiguous() for j in range(group)]
    rank = [torch.zeros(one[0].shape, dtype=torch.uint8, device=scores.device) for _ in one]
    for i, j in itertools.combinations(range(group), 2):
        first = one[i] <= one[j]
        rank[j] += first
        rank[i] += ~first
    return torch.stack([r < count for r in rank], -1).reshape(scores.shape)


def parse(text: str) -> Pattern:
    """``50%`` (removed), ``2:4`` (kept : group). Raises UsageError saying what is expected."""
    share = re.fullmatch(r"(\d+(?:\.\d+)?)%", text.strip())
    groups = re.fullmatch(r"(\d{1,3}):(\d{1,3})", text.strip())
    if share and 0 < float(share[1]) < 100:
        return Pattern(float(share[1]) / 100)
    if groups and 0 < int(groups[1]) < int(groups[2]):
        return Pattern(0.0, int(groups[1]), int(groups[2]))
    raise UsageError(
        f"--pattern: {text!r} is no sparsity", hint="50% removes half of each row; 2:4 keeps 2 of every 4 inputs"
    )


def check_scope(scope: str, pattern: Pattern, allowed: tuple[Scope, ...] = ("row", "layer")) -> Scope:
    """The scope, judged. Raises UsageError."""
    if scope not in get_args(Scope) or scope not in allowed:
        raise UsageError(f"--scope: {scope!r}, expected one of {', '.join(allowed)}")
    if pattern.group and scope != "row":
        raise UsageError(f"--scope {scope} says nothing for {pattern}: every group of a row keeps {pattern.keep}")
    return scope
