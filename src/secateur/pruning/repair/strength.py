"""How strong the pull of a ridge towards the cut weights should be: the one that predicts tokens held back best.

Glossary: as in :mod:`secateur.pruning.repair.ridge`; ``X``, ``Y`` the tokens to fit on, ``X'``, ``Y'`` those held back,
``R = Y - X W0^T`` what the cut left to explain. A candidate of strength lam predicts

    Y' ~ X' W0^T + X' (X^T X + lam I)^-1 X^T R      from sums
       = X' W0^T + X' X^T (X X^T + lam I)^-1 R      from tokens, while those are few

A few hundred outputs decide for all of them. Strengths grow until the prediction gets worse: with much text that is at
once, so that a choice costs two factorisations, in float32 (its result is a comparison).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from secateur.linalg import cholesky_
from secateur.pruning.repair.ridge import Sums

STRENGTHS = tuple(10 ** (k / 2) for k in range(-4, 5))
"""Relative to the mean of the Gram's diagonal, as ``damp``: from 0.01 to 100."""
DEFAULT = STRENGTHS[0]
"""Where no token can be held back."""
PROBED = 256
"""Outputs that decide."""
HELD = 1024
"""Tokens held back at most, of every :data:`SHARE`."""
SHARE = 4


def held_back(tokens: int) -> int:
    """How many of so many tokens to hold back."""
    return min(HELD, tokens // SHARE)


@dataclass(frozen=True, slots=True)
class Choice:
    """``system``: X^T X or X X^T, without a ridge; ``rest``: R^T X or R^T, (outputs, k); ``basis``: X' or X' X^T,
    (held, k); ``missing``: (Y' - X' W0^T)^T, (outputs, held); ``unit``: the ridge of strength 1."""

    system: torch.Tensor
    rest: torch.Tensor
    basis: torch.Tensor
    missing: torch.Tensor
    unit: float

    def errors(self, strength: float) -> float:
        """Squared error on what was held back; infinite where nothing can be factorised."""
        system = self.system.clone()
        system.diagonal().add_(strength * self.unit)
        factor = cholesky_(system)
        if factor is None:
            return math.inf
        solved = torch.cholesky_solve(self.rest.T, factor)
        return float((self.missing - (self.basis @ solved).T).double().square().sum())

    def best(self) -> float:
        """The strength from which on the error grows."""
        least, found = math.inf, DEFAULT
        for strength in STRENGTHS:
            error = self.errors(strength)
            if error < least:
                least, found = error, strength
            elif least < math.inf:
                break
        return found


def from_sums(sums: Sums, held: tuple[torch.Tensor, torch.Tensor], weight: torch.Tensor, with_bias: bool) -> Choice:
    """``held``: X' (held, inputs) and Y' (held, outputs)."""
    w0, some, x, y = _probed(weight, held)
    rest, system, n = sums.cross[some] - w0.double() @ sums.gram, sums.gram.float(), sums.gram.shape[0]
    if with_bias and sums.count:
        mean_x, mean_y = sums.x / sums.count, (sums.y / sums.count)[some]
        rest -= torch.outer(sums.count * (mean_y - w0.double() @ mean_x), mean_x)
        system.addr_(mean_x.float(), mean_x.float(), alpha=-float(sums.count))
        x, y = x - mean_x.to(x.dtype), y - mean_y.to(y.dtype)
    return Choice(system, rest.float(), x, (y - x @ w0.T).T, float(system.diagonal().double().sum()) / n)


def from_rows(
    rows: tuple[torch.Tensor, torch.Tensor], held: tuple[torch.Tensor, torch.Tensor], weight: torch.Tensor,
    with_bias: bool,
) -> Choice:  # fmt: skip
    """``rows``: X (tokens, inputs) and Y (tokens, outputs)."""
    w0, some, x, y = _probed(weight, held)
    a, b = rows[0].float(), rows[1][:, some].float()
    if with_bias:
        mean_x, mean_y = a.mean(0), b.mean(0)
        a, b, x, y = a - mean_x, b - mean_y, x - mean_x, y - mean_y
    system = a @ a.T
    unit = float(system.diagonal().double().sum()) / a.shape[1]
    return Choice(system, (b - a @ w0.T).T, x @ a.T, (y - x @ w0.T).T, unit)


def _probed(
    weight: torch.Tensor, held: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, slice, torch.Tensor, torch.Tensor]:
    """(weight of the probed outputs, which those are, X', Y' of those), float32."""
    some = slice(None, None, max(1, weight.shape[0] // PROBED))
    return weight[some].float(), some, held[0].float(), held[1][:, some].float()
