"""Importance alone: the r least important tokens are dropped. What clipping does is seen best here (UTRC's score
without its pairs)."""

from __future__ import annotations

import torch

from secateur.tokens.choice import Choice, Options, Row, dropped


def choose(row: Row, remove: int, options: Options) -> Choice:
    """Least important tokens are dropped."""
    return dropped(torch.argsort(row.importance[:-1], stable=True)[:remove])
