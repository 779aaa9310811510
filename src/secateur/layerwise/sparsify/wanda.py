"""Wanda (Sun et al., arXiv 2306.11695): an entry counts as much as what it usually adds to the output.

Glossary: ``W`` (m, d), ``X`` (tokens, d) inputs, ``C = X^T X``.

    score[i, j] = |W[i, j]| * || X[:, j] ||_2 = |W[i, j]| * sqrt(C[j, j]),    nothing is compensated

Compared within each row, as published. With uncorrelated inputs this is the single-removal score of optimal brain
surgeon. Without the Gram's other entries the predicted error takes inputs for uncorrelated.
"""

from __future__ import annotations

from dataclasses import dataclass

from secateur.layerwise.base import Method, Problem, Solution
from secateur.layerwise.sparsify.masked import masked
from secateur.layerwise.sparsify.pattern import check_scope, parse


@dataclass(frozen=True)
class Settings:
    """``pattern``: 50% or 2:4; ``scope``: row (as published) or layer."""

    pattern: str = "50%"
    scope: str = "row"


def solve(problem: Problem, settings: Settings) -> Solution:
    """The masked weight."""
    pattern = parse(settings.pattern)
    scope = check_scope(settings.scope, pattern)
    scores = problem.fast.abs().mul_(problem.gram.diagonal.sqrt().to(problem.working))
    return masked(problem, problem.fast, pattern.smallest(scores, scope))


METHOD = Method("wanda", "weight times input norm (arXiv 2306.11695)", "diagonal", Settings, solve)
