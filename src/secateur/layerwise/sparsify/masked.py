"""What every sparsifier returns: the masked weight, its mask, and what they take to store."""

from __future__ import annotations

import math

import torch

from secateur.layerwise.base import Problem, Solution


def masked(problem: Problem, weight: torch.Tensor, removed: torch.Tensor) -> Solution:
    """``weight`` (m, d) with zeros where ``removed``. Stored as a bitmap and the entries that stay."""
    weight = weight.double().masked_fill(removed, 0.0)
    stays = int((~removed).sum())
    nbytes = math.ceil(removed.numel() / 8) + stays * torch.empty(0, dtype=problem.dtype).element_size()
    solution = Solution.of(problem, weight, nbytes=nbytes, mask=~removed)
    return Solution(
        solution.weight, solution.parts, solution.error, nbytes, {"sparsity": 1 - stays / max(1, removed.numel())}
    )
