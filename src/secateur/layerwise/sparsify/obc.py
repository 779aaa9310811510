"""OBC / ExactOBS (Frantar & Alistarh, arXiv 2208.11580): the cheapest entry goes, the rest of its row makes up for it.

Glossary: ``w`` one row of W (m, d), ``P`` = H^-1 of the row (d, d), changing as entries go.

    j = argmin w_j^2 / P_jj;    w -= (w_j / P_jj) P_j,:;    P -= P_:,j P_j,: / P_jj;    loss of this step w_j^2 / P_jj

One at a time until the row has lost its share; in n:m an input whose group is done is passed over. ``scope layer``
notes every row's losses to the end and then takes the cheapest steps of all rows. Losses add up to the joint loss of
the mask, and the weights are its joint compensation. Cost O(m d^3). Many rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.layerwise.base import Method, Problem, Solution
from secateur.layerwise.elimination import Elimination, pulled, rows_at_a_time
from secateur.layerwise.gram import DAMP
from secateur.layerwise.sparsify.joint import joint
from secateur.layerwise.sparsify.masked import masked
from secateur.layerwise.sparsify.pattern import Pattern, check_scope, parse


@dataclass(frozen=True)
class Settings:
    """``pattern``: 50% or 2:4; ``scope``: row or layer; ``damp``: relative to the mean of the Gram's diagonal."""

    pattern: str = "50%"
    scope: str = "row"
    damp: float = DAMP


def greedy(weight: torch.Tensor, inverse: torch.Tensor, steps: int, pattern: Pattern) -> tuple[torch.Tensor, ...]:
    """(order, losses), (m, steps): which input each row gives up at each step and what that costs."""
    m, d = weight.shape
    rows = rows_at_a_time(d, steps)
    found = [_greedy(weight[i : i + rows], inverse, steps, pattern) for i in range(0, m, rows)]
    return torch.cat([order for order, _ in found]), torch.cat([losses for _, losses in found])


def _greedy(weight: torch.Tensor, inverse: torch.Tensor, steps: int, pattern: Pattern) -> tuple[torch.Tensor, ...]:
    w, (m, d) = weight.clone(), weight.shape
    p = Elimination(inverse, m, steps)
    closed = torch.zeros(m, d, dtype=torch.bool, device=w.device)
    left = torch.full((m, d // pattern.group if pattern.group else 1), pattern.group - pattern.keep, device=w.device)
    every = torch.arange(m, device=w.device)
    order = torch.zeros(m, steps, dtype=torch.long, device=w.device)
    losses = torch.zeros(m, steps, dtype=w.dtype, device=w.device)
    for step in range(steps):
        scores = (w.square() / p.tiles[:, :, 0, 0]).masked_fill(closed, torch.inf)
        losses[:, step], j = scores.min(1)
        order[:, step] = j
        w -= pulled(w[every, j][:, None, None], *p.lose(j))[:, 0]
        closed[every, j] = True
        if pattern.group:
            left[every, j // pattern.group] -= 1
            closed |= (left == 0).repeat_interleave(pattern.group, 1)
    return order, losses


def _cheapest(order: torch.Tensor, losses: torch.Tensor, count: int) -> torch.Tensor:
    """Mask (m, d) of ``count`` steps over all rows: each row's first ones, while the next step of it is among the
    cheapest. A step that costs less than one before it counts as that one."""
    costs = losses.cummax(1).values
    taken = torch.zeros(costs.numel(), dtype=torch.bool, device=costs.device)
    taken[costs.flatten().argsort(stable=True)[:count]] = True
    each = taken.reshape(costs.shape).sum(1)
    steps = torch.arange(order.shape[1], device=order.device) < each[:, None]
    return torch.zeros_like(steps).scatter_(1, order, steps)


def solve(problem: Problem, settings: Settings) -> Solution:
    """The greedy mask with its compensation."""
    pattern = parse(settings.pattern)
    pattern.check(problem.gram.width)
    scope = check_scope(settings.scope, pattern)
    d = problem.gram.width
    h = problem.gram.damped(settings.damp)
    if scope == "layer":
        order, losses = greedy(problem.weight, problem.gram.inverse(settings.damp), d, pattern)
        removed = _cheapest(order, losses, pattern.count(problem.weight.numel()))
    else:
        steps = d // pattern.group * (pattern.group - pattern.keep) if pattern.group else pattern.count(d)
        order, _ = greedy(problem.weight, problem.gram.inverse(settings.damp), steps, pattern)
        removed = torch.zeros(problem.weight.shape, dtype=torch.bool, device=order.device).scatter_(1, order, True)
    return masked(problem, joint(problem.weight, h, removed), removed)


METHOD = Method("obc", "exact greedy removal, row by row (arXiv 2208.11580)", "gram", Settings, solve)
