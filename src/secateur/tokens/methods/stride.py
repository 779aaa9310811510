"""Uniform stride: tokens at even distances are dropped. Knows nothing of the text, but leaves no hole anywhere."""

from __future__ import annotations

import torch

from secateur.tokens.choice import Choice, Options, Row, dropped


def choose(row: Row, remove: int, options: Options) -> Choice:
    """Token floor((i + 1/2) (n - 1) / r) for i = 0 .. r - 1."""
    n = len(row.branch)
    step = (torch.arange(remove, device=row.branch.device) * 2 + 1) * (n - 1) // max(1, 2 * remove)
    return dropped(step)
