"""OneBit (Xu et al., arXiv 2402.11295): a sign for every weight, and two vectors of scales. Reads no text.

    W' = sign(W) * (a b^T),     a b^T the best rank-1 matrix of |W|

As |W| has no negative entry, neither has its first singular pair (Perron-Frobenius). The start of a one-bit training;
alone it costs a lot. Shapes: W (m, d), a (m,), b (d,). Differences from known code: none in the decomposition.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.layerwise.base import Method, Problem, Solution


@dataclass(frozen=True, slots=True)
class Settings:
    """Nothing to set."""


def solve(problem: Problem, settings: Settings) -> Solution:
    """Signs and the first singular pair of the sizes."""
    sign = torch.where(problem.weight < 0, -1.0, 1.0).double()
    left, right = (v.to(problem.dtype) for v in rank_one(problem.weight.abs()))
    weight = (sign.to(problem.dtype) * torch.outer(left, right)).double()
    m, d = weight.shape
    nbytes = (m * d + 7) // 8 + (m + d) * problem.dtype.itemsize
    parts = {"sign": sign.to(torch.int8), "left": left, "right": right}
    return Solution(weight, parts, problem.error(weight), nbytes, {"bits": 1})


def rank_one(size: Tensor) -> tuple[Tensor, Tensor]:
    """(a (m,), b (d,)), both >= 0: a b^T is nearest to ``size`` (m, d) >= 0 of all matrices of rank one."""
    u, s, v = torch.linalg.svd(size, full_matrices=False)
    root = s[0].sqrt()
    return u[:, 0].abs() * root, v[0].abs() * root


METHOD = Method("onebit", "OneBit (2402.11295): signs times two vectors; no text", "nothing", Settings, solve)
