"""What every sparsifier returns: the masked weight, its mask, and what they take to store."""

from __future__ import annotations

import math

import torch

from secateur.layerwise.base import Problem, Solution


def masked(problem: Problem, weight: torch.Tensor, removed: torch.Tensor) -> Solution:
    """``weight`` (m, d) with zeros where ``removed``. Stored as a bitmap and the entries that stay."""
    weight, mask = weight.masked_fill(removed, 0.0), ~removed
    stays = int(mask.count_nonzero())
    nbytes = math.ceil(mask.numel() / 8) + stays * problem.dtype.itemsize
    notes = {"sparsity": 1 - stays / max(1, mask.numel())}
    return Solution(weight, {"mask": mask}, problem.error(weight), nbytes, notes)
