"""UTRC, "Rethinking Token Reduction for State Space Models" (arXiv 2410.14725), from the paper's procedure.

Glossary: ``n`` tokens, ``S`` importance, ``A`` the n/2 least important tokens, ``B`` the others and the last token.

    each a in A      best partner  b(a) = argmax over B of cos(branch_a, branch_b)
    removed          the r tokens of A most similar to their partners
    pruned           the floor(q r) least important of those: dropped from the hidden branch
    merged           the others in the hidden branch, all of them in the residual branch: b <- (a + b) / 2

The paper does not say which pairs are pruned; the least important ones, here. It does not protect the last token; we
must, generation goes on from it. Not the released code (wuyushuwys/ToR_SSM), which sorts every channel's tokens by
themselves, applies the matches to positional halves, merges by summing and scores by block outputs.

Merging takes no notice of time: a token merged into an earlier one shows that position its future, which flatters the
loss on survivors. ``causal`` forbids it.
"""

from __future__ import annotations

import torch

from secateur.tokens.choice import Choice, Options, Row, best_partner


def choose(row: Row, remove: int, options: Options) -> Choice:
    """Least important half, most similar pairs, prune and merge."""
    n = len(row.importance)
    order = torch.argsort(row.importance[:-1], stable=True)
    last = torch.tensor([n - 1], device=order.device)
    a, b = order[: n // 2], torch.cat([order[n // 2 :], last]).sort().values
    similarity, partner = best_partner(row.branch, a, b, options.causal)
    closest = torch.argsort(similarity, descending=True, stable=True)[:remove].sort().values
    # a is sorted by importance, and so are the pairs taken from it: the first are the least important
    hidden = torch.arange(remove, device=a.device) >= int(options.prune * remove)
    return Choice(a[closest], partner[closest], hidden, torch.ones_like(hidden))
