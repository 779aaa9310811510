"""Random tokens are dropped, the same ones in every row of a batch: the baseline that every score must beat."""

from __future__ import annotations

import torch

from secateur.tokens.choice import Choice, Options, Row, dropped


def choose(row: Row, remove: int, options: Options) -> Choice:
    """``options.seed`` decides; drawn on the CPU, so that every device drops the same."""
    generator = torch.Generator().manual_seed(options.seed)
    return dropped(torch.randperm(len(row.branch) - 1, generator=generator)[:remove].to(row.branch.device))
