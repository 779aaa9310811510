"""EViT, "Not All Patches are What You Need" (arXiv 2202.07800): keep the important tokens, fuse the rest into one.

    kept       the n - r - 1 most important tokens, and the last
    fused      the r + 1 least important ones:  sum S_i x_i / sum S_i,  at the place of the most important of them

The paper appends the fused token behind the others and does not divide by the sum of scores. A causal model has no
neutral place behind the last token, and a sum would leave the range of token norms that the layers know.
"""

from __future__ import annotations

import torch

from secateur.tokens.choice import Choice, Options, Row, dropped


def choose(row: Row, remove: int, options: Options) -> Choice:
    """Least important tokens go, fused by importance into the next one."""
    order = torch.argsort(row.importance[:-1], stable=True)
    removed = order[:remove]
    if remove in (0, len(order)):
        return dropped(removed)
    target = order[remove].expand(remove)
    fused = (removed < target) if options.causal else torch.ones_like(removed, dtype=torch.bool)
    weight = row.importance.clamp(min=0) + torch.finfo(row.importance.dtype).tiny
    return Choice(removed, target, fused, fused, weight)
