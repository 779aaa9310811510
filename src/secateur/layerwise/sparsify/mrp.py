"""MRP (Zhao et al., arXiv 2410.15567): all entries of a mask are removed at once, not one after another.

Glossary: ``S`` single removal, ``M`` multiple removal; a variant names the choice of the mask, then the compensation.

    mask S          SparseGPT's score on the swept weights
    mask M          in each group of an n:m pattern the set with the smallest joint loss w_A ([H^-1]_AA)^-1 w_A^T
    compensation S  the column sweep, which hands errors to the right only
    compensation M  joint least squares on what stays (see ``joint.py``)

Both masks are chosen progressively: H^-1 is conditioned on the columns already settled and w is swept. Taken from the
whole H^-1 at once, as the formula could be read, masks under correlated inputs are worse than Wanda's. SS is SparseGPT.
Over a whole row mask M is combinatorial; the paper takes mask S there, and so does this. Its repository holds no code.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch

from secateur.errors import UsageError
from secateur.layerwise.base import Method, Problem, Solution
from secateur.layerwise.gram import DAMP, Factor, spd_inverse
from secateur.layerwise.sparsify.joint import joint
from secateur.layerwise.sparsify.masked import masked
from secateur.layerwise.sparsify.pattern import Pattern, check_scope, parse
from secateur.layerwise.sparsify.sparsegpt import Choose, blocks, by_score, sparsify


@dataclass(frozen=True)
class Settings:
    """``variant``: SS, SM, MS or MM (mask, compensation); MS and MM want an n:m pattern. ``scope``: row or block;
    ``block``: columns a mask is chosen on; ``damp``: relative to the mean of the Gram's diagonal."""

    pattern: str = "50%"
    variant: str = "SM"
    scope: str = "row"
    block: int = 128
    damp: float = DAMP


def by_sets(factor: Factor, pattern: Pattern) -> Choose:
    """In each group the set of inputs with the smallest joint loss, among all sets of the right size."""
    sets = torch.tensor(list(itertools.combinations(range(pattern.group), pattern.group - pattern.keep)))

    def choose(w: torch.Tensor, start: int) -> torch.Tensor:
        stop = start + w.shape[1]
        # rows of U above `start` are settled: what is left of H^-1 in the group
        upper = factor.upper(start, stop)
        inverse = (upper.T @ upper).to(w.dtype)
        inside = spd_inverse(inverse[sets[:, :, None], sets[:, None, :]])
        parts = w[:, sets]
        losses = torch.einsum("isa,sab,isb->is", parts, inside, parts)
        best = sets.to(w.device)[losses.argmin(1)]
        return torch.zeros(w.shape, dtype=torch.bool, device=w.device).scatter_(1, best, True)

    return choose


def solve(problem: Problem, settings: Settings) -> Solution:
    """The mask of one kind with the compensation of one kind."""
    pattern = parse(settings.pattern)
    pattern.check(problem.gram.width)
    if settings.variant not in ("SS", "SM", "MS", "MM"):
        raise UsageError(f"--variant: {settings.variant!r}, expected SS, SM, MS or MM (mask, compensation)")
    if settings.variant[0] == "M" and not pattern.group:
        raise UsageError(
            f"--variant {settings.variant}: a joint mask over whole rows is combinatorial",
            hint="take SM, an n:m pattern, or the methods obc, swap and chita",
        )
    scope = check_scope("row" if pattern.group else settings.scope, pattern, ("row", "block"))
    factor = problem.gram.sweep(settings.damp, dtype=problem.working)
    weight = problem.fast.masked_fill(problem.gram.dead, 0.0)
    choose = by_sets(factor, pattern) if settings.variant[0] == "M" else by_score(factor, pattern, scope)
    swept, removed, _ = sparsify(weight, factor, choose, *blocks(pattern, settings.block))
    if settings.variant[1] == "M":
        swept = joint(weight.double(), problem.gram.damped(settings.damp), removed)
    return masked(problem, swept, removed)


METHOD = Method("mrp", "joint compensation of all that goes (arXiv 2410.15567)", "gram", Settings, solve)
