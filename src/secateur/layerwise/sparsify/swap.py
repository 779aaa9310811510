"""Swaps: another method's mask, improved one exchange at a time on the joint loss (cf. SparseSwaps, arXiv 2512.10922).

Glossary: one row ``w`` (d,), ``K`` kept and ``M`` removed inputs, ``H`` the damped Gram. Sweeping the symmetric matrix
A = [[H, Hw], [wH, wHw]] on K (the sweep operator of regression) leaves in one place all that an exchange needs:

    T_KK = -[H_KK]^-1     T_KM = [H_KK]^-1 H_KM     T_MM = H_MM - H_MK [H_KK]^-1 H_KM
    T_K* = w'_K, the best weights                   T_M* = g, the pull of removed inputs      T_** = joint loss

    bringing back a in M gains g_a^2 / T_aa; then giving up b in K costs
    (w'_b - T_ba g_a / T_aa)^2 / (-T_bb + T_ba^2 / T_aa)

The best exchange of each row is made until none gains; an exchange is two rank-one updates of T. An n:m pattern
exchanges inside groups. SparseSwaps exchanges without compensating in between; this loss is the compensated one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.errors import UsageError
from secateur.layerwise.base import Method, Problem, Solution
from secateur.layerwise.gram import DAMP, spd_inverse
from secateur.layerwise.sparsify import chita, magnitude, mrp, obc, sparsegpt, wanda
from secateur.layerwise.sparsify.joint import CHUNK_BYTES, joint
from secateur.layerwise.sparsify.masked import masked
from secateur.layerwise.sparsify.pattern import Pattern, parse, positions

STARTS = {m.METHOD.name: m.METHOD for m in (magnitude, wanda, sparsegpt, obc, mrp, chita)}
_GAIN = 1e-9
"""An exchange must gain this share of the row's loss, or rounding could make it turn for ever."""


@dataclass(frozen=True)
class Settings:
    """``pattern``: 50% or 2:4; ``start``: the method whose mask is improved, with its own defaults; ``swaps``: at most
    so many exchanges a row; ``damp``: relative to the mean of the Gram's diagonal."""

    pattern: str = "50%"
    start: str = "wanda"
    swaps: int = 1000
    damp: float = DAMP


def refine(
    weight: torch.Tensor, h: torch.Tensor, removed: torch.Tensor, pattern: Pattern, swaps: int = 1000
) -> tuple[torch.Tensor, int]:
    """(better mask (m, d) with as many removed in each row, or group; exchanges made)."""
    d = weight.shape[1]
    rows = max(1, CHUNK_BYTES // (8 * 8 * (d + 1) ** 2))
    better, made = removed.clone(), 0
    for i in range(0, len(weight), rows):
        better[i : i + rows], n = _refine(weight[i : i + rows], h, removed[i : i + rows], pattern.group, swaps)
        made += n
    return better, made


def _refine(
    weight: torch.Tensor, h: torch.Tensor, removed: torch.Tensor, group: int, swaps: int
) -> tuple[torch.Tensor, int]:
    """Rows whose best exchange gains nothing drop out."""
    out = removed.clone()
    active = torch.arange(len(weight), device=weight.device)
    t, gone, made = swept(weight, h, removed), removed.clone(), 0
    for _ in range(swaps):
        back, give, gain = _best(t, gone, group)
        better = gain > _GAIN * t[:, -1, -1]
        out[active[~better]] = gone[~better]
        if not bool(better.any()):
            return out, made
        if not bool(better.all()):
            active, t, gone, back, give = active[better], t[better], gone[better], back[better], give[better]
        every = torch.arange(len(active), device=t.device)
        _pivot(t, back, into=True)
        _pivot(t, give, into=False)
        gone[every, back], gone[every, give] = False, True
        made += len(active)
    out[active] = gone
    return out, made


def swept(weight: torch.Tensor, h: torch.Tensor, removed: torch.Tensor) -> torch.Tensor:
    """T (m, d + 1, d + 1) for each row."""
    m, d = weight.shape
    kept = torch.nn.functional.pad(~removed, (0, 1))
    both = kept[:, :, None] & kept[:, None, :]
    hw = weight @ h
    a = h.new_zeros(m, d + 1, d + 1)
    a[:, :d, :d], a[:, :d, d], a[:, d, :d], a[:, d, d] = h, hw, hw, (hw * weight).sum(1)
    identity = torch.eye(d + 1, dtype=h.dtype, device=h.device)
    inverse = spd_inverse(torch.where(both, a, identity)) * both  # [H_KK]^-1, zero elsewhere
    right = inverse @ a  # rows of K; those of M are zero
    schur = a.baddbmm(a, right, alpha=-1.0)
    t = torch.where(kept[:, :, None], right, torch.where(kept[:, None, :], right.mT, schur))
    return torch.where(both, -inverse, t)


def _best(t: torch.Tensor, gone: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(input to bring back, input to give up, gain) of each row's best exchange."""
    kept, away = _inside(~gone, group), _inside(gone, group)
    b, a = kept.index[..., :, None], away.index[..., None, :]
    at = b * t.shape[1] + a
    u = t.flatten(1).gather(1, at.flatten(1)).view(at.shape)
    diagonal, last = t.diagonal(dim1=1, dim2=2), t[:, :, -1]
    w, costs = kept.of(last)[..., :, None], kept.of(diagonal)[..., :, None]
    g, ease = away.of(last)[..., None, :], away.of(diagonal)[..., None, :]
    left = (w - u * (g / ease)).square_()  # (rows, groups, b, a)
    gain = left.div_((u.square_() / ease).sub_(costs)).neg_().add_(g.square() / ease)
    if not (bool(kept.valid.all()) and bool(away.valid.all())):
        gain.masked_fill_(~(kept.valid[..., :, None] & away.valid[..., None, :]), -torch.inf)
    best, pair = gain.flatten(1).max(1)
    pairs = [x.expand(gain.shape).flatten(1).gather(1, pair[:, None])[:, 0] for x in (a, b)]
    return pairs[0], pairs[1], best


@dataclass(frozen=True)
class _Inside:
    """Inputs of every group that are in a mask, (rows, groups, most of them); where there are fewer, not ``valid``
    ones fill up."""

    index: torch.Tensor
    valid: torch.Tensor

    def of(self, values: torch.Tensor) -> torch.Tensor:
        """``values`` (rows, d ..) of these inputs."""
        return values.gather(1, self.index.flatten(1)).view(self.index.shape)


def _inside(mask: torch.Tensor, group: int) -> _Inside:
    m, d = mask.shape
    index, valid = positions(mask.view(m, -1, group or d))
    first = torch.arange(0, d, group or d, device=mask.device)[:, None]
    return _Inside(index + first, valid)


def _pivot(t: torch.Tensor, at: torch.Tensor, *, into: bool) -> None:
    """Sweep each row's T on input ``at``, into the kept ones or back."""
    every = torch.arange(len(at), device=t.device)
    column = t[every, :, at].clone()
    pivot = column[every, at][:, None]
    t.baddbmm_((column / -pivot)[:, :, None], column[:, None, :])
    edge = column / pivot if into else -column / pivot
    t[every, :, at] = edge
    t[every, at, :] = edge
    t[every, at, at] = -1.0 / pivot[:, 0]


def solve(problem: Problem, settings: Settings) -> Solution:
    """The improved mask with joint compensation."""
    if settings.start not in STARTS:
        raise UsageError(f"--start: {settings.start!r}, expected one of {', '.join(STARTS)}")
    pattern, first = parse(settings.pattern), STARTS[settings.start]
    begun = first.solve(problem, first.configure(pattern=settings.pattern))
    weight = problem.weight.masked_fill(problem.gram.dead, 0.0)
    h = problem.gram.damped(settings.damp)
    removed, made = refine(weight, h, ~begun.parts["mask"], pattern, settings.swaps)
    done = masked(problem, joint(weight, h, removed), removed)
    return Solution(done.weight, done.parts, done.error, done.nbytes, {**done.notes, "swaps": made})


METHOD = Method(
    "swap", "any mask improved by exchanges on the joint loss (cf. arXiv 2512.10922)", "gram", Settings, solve
)
