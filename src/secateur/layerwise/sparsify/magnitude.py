"""Magnitude: the entries that are small themselves go (Han et al., arXiv 1506.02626); needs no text.

Glossary: ``W`` (m, d).

    score[i, j] = |W[i, j]|,    nothing is compensated

Compared within each row by default; the usual baseline compares over the whole layer (``scope layer``).
"""

from __future__ import annotations

from dataclasses import dataclass

from secateur.layerwise.base import Method, Problem, Solution
from secateur.layerwise.sparsify.masked import masked
from secateur.layerwise.sparsify.pattern import check_scope, parse


@dataclass(frozen=True)
class Settings:
    """``pattern``: 50% or 2:4; ``scope``: row or layer."""

    pattern: str = "50%"
    scope: str = "row"


def solve(problem: Problem, settings: Settings) -> Solution:
    """The masked weight."""
    pattern = parse(settings.pattern)
    scope = check_scope(settings.scope, pattern)
    return masked(problem, problem.fast, pattern.smallest(problem.fast.abs(), scope))


METHOD = Method("magnitude", "the smallest entries go; needs no text", "nothing", Settings, solve)
