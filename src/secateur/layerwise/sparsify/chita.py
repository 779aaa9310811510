"""CHITA-style joint selection (Benbaki et al., arXiv 2302.14623): sparse least squares by hard thresholding.

Glossary: ``W0`` (m, d) as it was, ``H`` the damped Gram, ``D`` its diagonal, ``S`` a row's support.

    V = W - tau ((W - W0) H) / D         a gradient step in units in which every input has energy 1
    S = the largest |V| sqrt(D)          by the pattern
    W = joint least squares on S         kept where the row's loss fell; else tau is halved

CHITA minimises a model's loss through per-sample gradients with a line search and coordinate descent; here the loss is
the layer's own and H is known, so that the back-solve is the joint compensation. Each row stops at its own fixed point.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.layerwise.base import Method, Problem, Solution
from secateur.layerwise.gram import DAMP
from secateur.layerwise.sparsify.joint import joint
from secateur.layerwise.sparsify.masked import masked
from secateur.layerwise.sparsify.pattern import Pattern, parse


@dataclass(frozen=True)
class Settings:
    """``pattern``: 50% or 2:4, within rows; ``rounds``: thresholdings a row may take; ``damp``: relative to the mean of
    the Gram's diagonal."""

    pattern: str = "50%"
    rounds: int = 16
    damp: float = DAMP


def select(weight: torch.Tensor, h: torch.Tensor, pattern: Pattern, rounds: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(weights (m, d), mask): each row at the best support that thresholding found, begun at Wanda's."""
    scale = h.diagonal().sqrt()
    removed = pattern.smallest(weight.abs() * scale)
    best = joint(weight, h, removed)
    loss = _losses(weight - best, h)
    tau = torch.ones(len(weight), 1, dtype=weight.dtype, device=weight.device)
    rows = torch.arange(len(weight), device=weight.device)
    for _ in range(rounds):
        now = best[rows]
        step = now - tau[rows] * ((now - weight[rows]) @ h) / scale.square()
        trial = pattern.smallest(step.abs() * scale)
        moved = (trial != removed[rows]).any(1)
        rows, trial = rows[moved], trial[moved]
        if not len(rows):
            break
        solved = joint(weight[rows], h, trial)
        fell = _losses(weight[rows] - solved, h)
        better = fell < loss[rows]
        won = rows[better]
        best[won], removed[won], loss[won] = solved[better], trial[better], fell[better]
        tau[rows[~better]] /= 2
    return best, removed


def _losses(delta: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    return ((delta @ h) * delta).sum(1)


def solve(problem: Problem, settings: Settings) -> Solution:
    """The selected weights."""
    pattern = parse(settings.pattern)
    pattern.check(problem.gram.width)
    weight = problem.weight.masked_fill(problem.gram.dead, 0.0)
    return masked(problem, *select(weight, problem.gram.damped(settings.damp), pattern, settings.rounds))


METHOD = Method("chita", "joint selection by hard thresholding (arXiv 2302.14623)", "gram", Settings, solve)
