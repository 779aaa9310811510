"""What the factorising methods share: the rank from the options, factors as they will be stored, and the solution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from secateur.errors import UsageError
from secateur.export.formats.factors import multiplied
from secateur.layerwise.base import Method, Needs, Problem, Solution, Unfit
from secateur.layerwise.factorize.factors import Factors, rank_of


@dataclass(frozen=True)
class LowRank:
    """``ratio``: part of a linear's parameters that its factors hold; ``rank``: the same rank everywhere instead."""

    ratio: float = 0.8
    rank: int | None = None

    def rank_for(self, m: int, d: int) -> int:
        """The rank of an (m, d) weight. Raises UsageError for ranks below 1."""
        if self.rank is None:
            return rank_of(self.ratio, m, d)
        if self.rank < 1:
            raise UsageError(f"rank {self.rank}: expected at least 1")
        return min(self.rank, m, d)


#: (weight (m, d), gram (d, d), rank) -> factors.
Factorise = Callable[[Tensor, Tensor, int], Factors]


def low_rank(
    name: str, about: str, needs: Needs, formula: Callable[..., Factors], settings: type[LowRank] = LowRank
) -> Method:
    """A registry line. Fields that ``settings`` has beside ratio and rank are keyword arguments of ``formula``."""
    extra = [f for f in settings.__dataclass_fields__ if f not in LowRank.__dataclass_fields__]

    def solve(problem: Problem, chosen: Any) -> Solution:
        options = {name: getattr(chosen, name) for name in extra}
        return solution(problem, chosen, lambda w, c, r: formula(w, c, r, **options))

    return Method(name, about, needs, settings, solve)


def solution(problem: Problem, chosen: LowRank, formula: Factorise) -> Solution:
    """Factors in the file's dtype and their product, which is what the layer computes with.

    Raises Unfit where factors would take as many numbers as the weight.
    """
    m, d = problem.weight.shape
    rank = chosen.rank_for(m, d)
    if rank * (m + d) >= m * d:
        raise Unfit(f"rank {rank} saves nothing of {m} x {d}")
    found = formula(problem.weight, problem.gram.matrix, rank)
    left, right = found.left.to(problem.dtype), found.right.to(problem.dtype)
    weight = multiplied(left, right)
    error = problem.error(weight)
    return Solution(
        weight, {"left": left, "right": right}, error, rank * (m + d) * problem.dtype.itemsize, {"rank": rank}
    )
