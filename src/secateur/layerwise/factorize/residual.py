"""``--residual RANK``: what any other method did to a linear, and a low rank that makes up for it (EoRA).

    W' = W_c + B A,     B A = eora(W, W_c, C, rank), rounded to the dtype of the file

Later layers see W'. W_c is stored as its own method stores it, B and A as an adapter beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from secateur.errors import UsageError
from secateur.export.formats.factors import multiplied
from secateur.layerwise.base import Method, Problem, Solution
from secateur.layerwise.factorize.eora import eora

LEFT, RIGHT, BASE = "residual_left", "residual_right", "residual_base"
"""Parts of a solution with a residual: B (m, r), A (r, d), and W_c (m, d) in the dtype of the file."""


def with_residual(method: Method, rank: int) -> Method:
    """``method``, followed by EoRA at ``rank``; its options are those of ``method``. Raises UsageError below rank 1."""
    if rank < 1:
        raise UsageError(f"--residual {rank}: expected a rank of at least 1")

    def solve(problem: Problem, settings: Any) -> Solution:
        return corrected(problem, method.solve(problem, settings), rank)

    return Method(
        f"{method.name}+eora", f"{method.about}; then a residual of rank {rank}", "gram", method.settings, solve
    )


def corrected(problem: Problem, solution: Solution, rank: int) -> Solution:
    """``solution`` with a residual of at most ``rank`` added to its weight."""
    m, d = problem.weight.shape
    base = solution.weight.to(problem.dtype)
    found = eora(problem.weight, base, problem.gram.matrix, min(rank, m, d))
    left, right = found.left.to(problem.dtype), found.right.to(problem.dtype)
    weight = base.double() + multiplied(left, right)
    return Solution(
        weight,
        {**solution.parts, LEFT: left, RIGHT: right, BASE: base},
        problem.error(weight),
        solution.nbytes + found.rank * (m + d) * problem.dtype.itemsize,
        {**solution.notes, "residual": found.rank, "error before it": solution.error},
    )


def without_residual(solutions: Sequence[Solution | None]) -> list[Solution | None]:
    """The solutions of the method alone."""
    return [None if s is None else replace(s, weight=s.parts[BASE].double(), parts=_own(s.parts)) for s in solutions]


def _own(parts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: t for k, t in parts.items() if k not in (LEFT, RIGHT, BASE)}
