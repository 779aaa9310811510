"""Blocks: whole tiles go, of some rows and neighbouring inputs (ZipLM, arXiv 2302.04089; groups of OBS).

Glossary: ``R`` the rows of a tile (all rows: whole inputs go, ZipLM's structures), ``S`` its inputs, ``P`` = H^-1 of
the rows, changing as tiles go.

    loss_S = tr( W_RS ([P]_SS)^-1 W_RS^T );    the smallest goes;    W_R -= W_RS [P_SS]^-1 P_S,:
    P -= P_:,S [P_SS]^-1 P_S,:

Every group of rows loses the same share of its tiles. Tiles of 1 x 1 are OBC. ZipLM adds a latency table, which is the
allocator's business here. Removing tiles one by one ends where removing them together does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.errors import UsageError
from secateur.layerwise.base import Method, Problem, Solution, Unfit
from secateur.layerwise.elimination import Elimination, pulled, rows_at_a_time
from secateur.layerwise.gram import DAMP, spd_inverse
from secateur.layerwise.sparsify.joint import joint
from secateur.layerwise.sparsify.masked import masked
from secateur.layerwise.sparsify.pattern import parse


@dataclass(frozen=True)
class Settings:
    """``pattern``: a share, as in 50%; ``rows``: rows of a tile, 0 for all; ``columns``: its neighbouring inputs;
    ``damp``: relative to the mean of the Gram's diagonal."""

    pattern: str = "50%"
    rows: int = 1
    columns: int = 4
    damp: float = DAMP


def greedy(weight: torch.Tensor, inverse: torch.Tensor, columns: int, steps: int) -> torch.Tensor:
    """Which tiles go, (groups, steps), for ``weight`` (groups, rows, d)."""
    groups, _, d = weight.shape
    n = d // columns
    w, p = weight.clone(), Elimination(inverse, groups, steps, columns)
    closed = torch.zeros(groups, n, dtype=torch.bool, device=w.device)
    order = torch.zeros(groups, steps, dtype=torch.long, device=w.device)
    every, eye = torch.arange(groups, device=w.device), torch.eye(columns, dtype=w.dtype, device=w.device)
    for step in range(steps):
        inverted = spd_inverse(torch.where(closed[..., None, None], eye, p.tiles))
        tiles = w.view(groups, -1, n, columns)
        losses = torch.einsum("grta,gtab,grtb->gt", tiles, inverted, tiles).masked_fill(closed, torch.inf)
        t = losses.argmin(1)
        order[:, step] = t
        w -= pulled(tiles[every, :, t], *p.lose(t))
        closed[every, t] = True
    return order


def solve(problem: Problem, settings: Settings) -> Solution:
    """Whole tiles zero, the rest compensated."""
    pattern, (m, d) = parse(settings.pattern), problem.weight.shape
    if pattern.group:
        raise UsageError(f"--pattern {pattern}: blocks take a share of the tiles, as in 50%")
    rows, columns = settings.rows or m, settings.columns
    if m % rows or d % columns:
        raise Unfit(f"its {m} x {d} entries do not divide into tiles of {rows} x {columns}")
    weight = problem.weight.masked_fill(problem.gram.dead, 0.0)
    inverse, steps = problem.gram.inverse(settings.damp), pattern.count(d // columns)
    groups = weight.reshape(-1, rows, d)
    chunk = rows_at_a_time(d, steps * columns)
    order = torch.cat([greedy(groups[i : i + chunk], inverse, columns, steps) for i in range(0, len(groups), chunk)])
    tiles = torch.zeros(len(groups), d // columns, dtype=torch.bool, device=weight.device).scatter_(1, order, True)
    removed = tiles.repeat_interleave(columns, 1).repeat_interleave(rows, 0)
    return masked(problem, joint(weight, problem.gram.damped(settings.damp), removed), removed)


METHOD = Method("block", "whole tiles or inputs go (arXiv 2302.04089)", "gram", Settings, solve)
