"""SparseGPT (Frantar & Alistarh, arXiv 2301.00774): one sweep over the columns, errors handed on to the right.

Glossary: ``W`` (m, d), ``H`` the damped Gram, ``U`` upper triangular with H^-1 = U^T U, so that U_jj^2 is [H^-1]_jj
with all columns before j eliminated.

    mask    the smallest (W_ij / U_jj)^2 of a block of columns, chosen on the weights as they are then
    e_j = W_j / U_jj where masked, else 0;    W_:,j: -= e_j U_j,j:

Published: blocks of 128 columns, threshold over the whole block (rows x columns), so rows end up with unequal sparsity
(``scope block``); ``scope row`` takes the same share of each row, which is what to compare with per-row methods. In
n:m the mask of a group is chosen when the sweep gets there. sum e^2 is the error tr(dW H dW^T) for any mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from secateur.layerwise.base import Method, Problem, Solution
from secateur.layerwise.gram import DAMP, Factor
from secateur.layerwise.sparsify.masked import masked
from secateur.layerwise.sparsify.pattern import Pattern, Scope, check_scope, parse
from secateur.layerwise.sweep import sweep

#: (current weights of the next columns (m, b), their first column) -> which entries go, (m, b).
Choose = Callable[[torch.Tensor, int], torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """``pattern``: 50% or 2:4; ``scope``: block (as published) or row; ``block``: columns whose masks are chosen and
    whose errors are handed on together; ``damp``: relative to the mean of the Gram's diagonal."""

    pattern: str = "50%"
    scope: str = "block"
    block: int = 128
    damp: float = DAMP


def sparsify(
    weight: torch.Tensor, factor: Factor, choose: Choose, step: int, block: int = 128
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """(swept weights (m, d) with zeros where masked, mask, sum e^2); ``choose`` is asked for ``step`` columns a time.

    ``step`` divides ``block`` or is as large.
    """
    m, d = weight.shape
    removed = torch.zeros(d, m, dtype=torch.bool, device=weight.device)
    stays = torch.empty(d, m, dtype=weight.dtype, device=weight.device)

    def settle(j: int, rest: torch.Tensor) -> torch.Tensor:
        if j % block % step == 0:
            end = j + min(step, len(rest))
            removed[j:end] = choose(rest[: end - j].T, j).T
            stays[j:end] = ~removed[j:end]
        return rest[0] * stays[j]

    swept, total = sweep(weight, factor, settle, step=step, block=block)
    return swept, removed.T.contiguous(), total


def by_score(factor: Factor, pattern: Pattern, scope: Scope) -> Choose:
    """The single-removal score, conditioned on the columns that are settled."""

    def choose(w: torch.Tensor, start: int) -> torch.Tensor:
        scores = (w / factor.scale[start : start + w.shape[1]].to(w.dtype)).square_()
        return pattern.smallest(scores, "layer" if scope == "block" else scope)

    return choose


def given(mask: torch.Tensor) -> Choose:
    """A mask that is known."""
    return lambda w, start: mask[:, start : start + w.shape[1]]


def blocks(pattern: Pattern, block: int) -> tuple[int, int]:
    """(columns a mask is chosen for at a time, columns a block)."""
    return (pattern.group, block - block % pattern.group or pattern.group) if pattern.group else (block, block)


def solve(problem: Problem, settings: Settings) -> Solution:
    """The swept weight. Dead inputs lose their weights first."""
    pattern = parse(settings.pattern)
    pattern.check(problem.gram.width)
    scope = check_scope("row" if pattern.group else settings.scope, pattern, ("row", "block"))
    factor = problem.gram.sweep(settings.damp, dtype=problem.working)
    weight = problem.fast.masked_fill(problem.gram.dead, 0.0)
    step, block = blocks(pattern, settings.block)
    swept, removed, _ = sparsify(weight, factor, by_score(factor, pattern, scope), step, block)
    return masked(problem, swept, removed)


METHOD = Method("sparsegpt", "one sweep that hands errors on (arXiv 2301.00774)", "gram", Settings, solve)
